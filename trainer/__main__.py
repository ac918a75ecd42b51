"""From a toolset to published adapters: queries, trajectories, dataset, training, evaluation, gate. Resumes where it stopped.

`python -m trainer.training` and `.evaluate` take the same options and stop after that step.

python -m trainer --toolset filesystem --profile small --store .run/adapters
python -m trainer --toolset mine --conversations mine.jsonl --epochs 6 --store .run/adapters
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

# Nothing here may ask the network, and nobody else's progress bars.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1")

import torch
from prometheus_client import start_http_server
from tokenizers import Tokenizer

from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.base_model import base_fingerprint
from services.shared.contracts.prompts import PromptRenderer
from services.shared.contracts.tools import Tool, sha256_of
from trainer.command import status_of
from trainer.metrics import TrainMetrics, recorded
from trainer.pipeline import Plan, Step, run
from trainer.profiles import PROFILES, Profile
from trainer.progress import progress
from trainer.publish import serving
from trainer.queries import pinned_tools
from trainer.teacher_client import TeacherSettings


def address(text: str) -> tuple[str, int]:
    """`HOST:PORT` as a pair."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9036")
    return host.strip("[]"), int(port)


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan that the command line asks for.

    Raises:
        LookupError: the toolset or the base model is not there; says what to do.
    """
    profile = PROFILES[args.profile]
    if args.episodes:
        profile = replace(profile, episodes=args.episodes)
    if args.epochs:
        profile = replace(profile, epochs=args.epochs)
    # Where more are to be evaluated than the profile holds out, more are held out.
    profile = replace(profile, heldout=max(profile.heldout, args.evaluated))
    tools = pinned_tools(args.toolset, args.toolsets_dir)
    if args.conversations and not tools:
        file = args.toolsets_dir / args.toolset / "tools.json"
        raise LookupError(f"there is no {file}: a list of OpenAI tools, with which the conversations are learned")
    if not (args.model / "tokenizer.json").exists():
        raise LookupError(f"there is no base model in {args.model}; `make model` makes the embedded one, --model names another")
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    # The generation prompt of ChatML: what every decision comes right after.
    activation = tokenizer.encode("<|im_start|>assistant", add_special_tokens=False).ids if args.alora else None
    return Plan(
        toolset=args.toolset,
        tools=tools,
        toolsets_dir=args.toolsets_dir,
        model_dir=args.model,
        work=work_of(args, profile, tools),
        command=command_of(args),
        profile=profile,
        seed=args.seed,
        activation=activation,
        joint=args.joint,
        teacher=args.teacher,
        conversations=args.conversations,
        evaluated=args.evaluated,
    )


def continued(plan: Plan, store: Path, only: Sequence[str] = ()) -> Plan:
    """The plan that goes on with the training of the adapters that serve, or `only` of some, at half the rate.

    Raises:
        LookupError: no adapters serve that fit the plan; says what does not.
    """
    known = serving(plan.origin, store)
    if known is None:
        raise LookupError(f"nothing to go on from: {store} serves no adapters of {plan.toolset} for this model and these tools")
    if tuple(known.activation or ()) != tuple(plan.activation or ()):
        kind = "activated" if known.activation else "plain"
        raise LookupError(f"release {known.release} of {plan.toolset} has {kind} LoRA, which --alora chooses")
    names = sha256_of([*(one.folder.name for one in known.adapters), *sorted(only)])[:8]
    return replace(
        plan,
        command=f"{plan.command} {shlex.join(['--continue', *only])}",
        begin=known.adapters,
        only=only,
        profile=replace(plan.profile, learning_rate=plan.profile.learning_rate / 2),
        work=plan.work.with_name(f"{plan.work.name}-{names}"),
    )


def work_of(args: argparse.Namespace, profile: Profile, tools: Sequence[Tool]) -> Path:
    """The folder of this training: what is in there was made from the same, and goes on where it stopped."""
    model = base_fingerprint(args.model), PromptRenderer.load(args.model).template_hash
    told_apart = [repr(profile), args.seed, args.alora, args.joint, *model, [tool.openai() for tool in tools]]
    if args.teacher:
        teacher = TeacherSettings()
        told_apart += [teacher.base_url, teacher.model, teacher.temperature]
    for path in args.conversations:
        with path.open("rb") as file:
            told_apart.append(hashlib.file_digest(file, "sha256").hexdigest())
    folder: Path = args.work / args.toolset / f"{args.profile}-{sha256_of(told_apart)[:8]}"
    return folder


def command_of(args: argparse.Namespace) -> str:
    """The command that makes the same adapters again, without where things are kept."""
    words = ["python", "-m", "trainer", "--toolset", args.toolset, "--profile", args.profile, "--seed", str(args.seed)]
    for name in ("episodes", "epochs", "evaluated"):
        words += [f"--{name}", str(getattr(args, name))] if getattr(args, name) else []
    words += ["--conversations", *(path.name for path in args.conversations)] if args.conversations else []
    words += [f"--{name}" for name in ("teacher", "alora", "joint") if getattr(args, name)]
    return shlex.join(words)


def main(until: Step = "publish") -> int:
    """Parses the command line and goes as far as `until`; the exit status is 1 when it did not get there."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    parser.add_argument("--toolset", required=True, help="a folder of the toolsets")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="small")
    parser.add_argument("--store", type=Path, required=True, help="the adapter store to publish into")
    parser.add_argument("--model", type=Path, default=Path(".run/models/smollm2-135m-instruct"), help="the base model's folder")
    parser.add_argument("--toolsets-dir", type=Path, default=Path("deploy/toolsets"))
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="where rows, checkpoints and reports are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=0, help="how many conversations to write; 0 is what the profile says")
    parser.add_argument("--epochs", type=int, default=0, help="how often each row is seen; 0 is what the profile says")
    parser.add_argument("--evaluated", type=int, default=150, help="how many held-out conversations to evaluate on")
    parser.add_argument("--threads", type=int, default=2)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--teacher", action="store_true", help="let a larger model write the training conversations")
    source.add_argument(
        "--conversations",
        type=Path,
        nargs="+",
        default=[],
        help="learn from finished ones, JSONL of {messages, tools}; nothing is executed, and one in ten is held out",
    )
    parser.add_argument("--alora", action="store_true", help="train activated LoRA, which acts from the generation prompt on")
    parser.add_argument("--joint", action="store_true", help="train one adapter for everything")
    parser.add_argument(
        "--continue",
        dest="go_on",
        nargs="*",
        metavar="ADAPTER",
        help="go on with the training of all adapters that serve, or of some: select, joint, a tool's; wants a new --seed",
    )
    parser.add_argument("--force", action="store_true", help="publish even what is not better; the card says so")
    parser.add_argument("--metrics", type=address, help="HOST:PORT where Prometheus may look while it trains; off by default")
    args = parser.parse_args()
    # So that a training that its platform ends says so in the store.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return status_of(lambda: _run(args, until))


def _run(args: argparse.Namespace, until: Step) -> None:
    torch.set_num_threads(args.threads)
    plan = make_plan(args)
    if args.go_on is not None:
        plan = continued(plan, args.store, args.go_on)
    metrics = TrainMetrics(plan.toolset)
    if args.metrics:
        host, port = args.metrics
        start_http_server(port, addr=host, registry=metrics.registry)
    in_store = recorded(AdapterStore(args.store), plan.toolset) if until == "publish" else nullcontext()
    with progress() as bar, in_store:
        told = run(plan, args.store, metrics.watched(bar), metrics, force=args.force, until=until)
    print(told, end="")


if __name__ == "__main__":
    raise SystemExit(main())
