"""What the gateway adds: latency, requests per second on one core, streams, overload, memory; and peers beside it in one run.

One worker on core 0; the instant stand-ins for engine, selector and arguments, and the load, on core 1. Rounds are interleaved,
so that a busy machine is equally unkind to all. Peers (LiteLLM's proxy, vllm-router) relay the same pass-through request; they
are installed into build/bench/peers on the first run, and a peer that cannot be installed is left out and named. Prints tables
and writes build/bench/gateway.json.

    make bench-gateway ARGS="--rounds 3 --soak 600"
    make bench-gateway ARGS="--only streams"
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from deploy.local.plan import REPOSITORY
from deploy.local.progress import Progress
from tests.bench.instant import SLOWLY, SPREAD

PEERS = REPOSITORY / "build" / "bench" / "peers"
# 1.82.7, 1.82.8 and 1.107.0 of litellm were compromised: the version is exact.
LITELLM, VLLM_ROUTER = "litellm[proxy]==1.106.2", "vllm-router==0.1.17"
FIRST_PORT = 18600
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "Is it raining in Paris?"}]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": WEATHER}}
BODIES = {
    "plain": ASK,
    "tools": {**ASK, "tools": [TOOL]},
    "stream": {**ASK, "stream": True},
    "spread": {**ASK, "messages": [{"role": "user", "content": SPREAD}], "stream": True},
    "slow": {**ASK, "messages": [{"role": "user", "content": f"{SPREAD} {SLOWLY}"}], "stream": True},
}
PARTS = ("latency", "throughput", "streams", "memory", "overload")


@dataclass(frozen=True)
class Target:
    """Where a request goes, which one, and how many requests of the stand-in one of it takes."""

    name: str
    url: str
    body: str = "plain"
    hops: int = 1


class Bench:
    """The running processes, and what was measured."""

    def __init__(self, stack: ExitStack, folder: Path, progress: Progress) -> None:
        self.stack, self.folder, self.progress = stack, folder, progress
        self.ports = iter(range(FIRST_PORT, FIRST_PORT + 50))
        self.results: dict[str, Any] = {"load_before": os.getloadavg()[0]}
        for name, body in BODIES.items():
            (folder / f"{name}.json").write_text(json.dumps(body))

    def start(self, command: list[str], *, core: int, path: str, env: dict[str, str] | None = None) -> tuple[psutil.Process, str]:
        """Starts a server on one core and waits until a GET of `path` is answered; {port} in the command is its port."""
        port = next(self.ports)
        command = ["taskset", "-c", str(core), *(part.replace("{port}", str(port)) for part in command)]
        log = self.stack.enter_context((self.folder / f"{port}.log").open("wb"))
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY, env={**os.environ, **(env or {})})
        self.stack.callback(_stop, process)
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url + path, timeout=2).status_code < 500:
                    return psutil.Process(process.pid), url
            if process.poll() is not None:
                break
            time.sleep(0.2)
        raise RuntimeError(f"{command[3:6]} did not start:\n{(self.folder / f'{port}.log').read_text()[-2000:]}")

    def stand_in(self, delay_ms: float = 0) -> str:
        return self.start([sys.executable, "-m", "tests.bench.instant", "{port}", str(delay_ms)], core=1, path="/livez")[1]

    def gateway(self, behind: str, **settings: str) -> tuple[psutil.Process, str]:
        names = {"ENGINE_URL": behind, "SELECTOR_URL": behind, "ARGUMENTS_URL": behind, "CALLCACHE_URL": behind, **settings}
        env = {f"AGENTFLUX_GATEWAY_{name}": value for name, value in {**names, "LOG_LEVEL": "warning"}.items()}
        env["AGENTFLUX_GATEWAY_PORT"] = "{port}"
        command = ["env", *(f"{name}={value}" for name, value in env.items()), sys.executable, "-m", "services.gateway"]
        return self.start(command, core=0, path="/livez")

    def load(self, target: Target, connections: int, total: int, rate: float = 0) -> dict[str, Any]:
        command = ["taskset", "-c", "1", sys.executable, "-m", "tests.bench.load", f"{target.url}/v1/chat/completions"]
        command += [str(self.folder / f"{target.body}.json"), str(connections), str(total), str(rate)]
        # By way of a file: a pipe has lost the rest of answers beyond 128 KiB.
        with tempfile.TemporaryFile() as answer:
            subprocess.run(command, stdout=answer, check=True, cwd=REPOSITORY, timeout=600)
            answer.seek(0)
            found: dict[str, Any] = json.load(answer)
        return found


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--soak", type=float, default=60.0, help="seconds of steady load while memory is watched")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--only", choices=PARTS, help="one part; what the file has of others stays")
    args = parser.parse_args()
    progress = Progress()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(stack, Path(folder), progress)
        behind = bench.stand_in()
        process, url = bench.gateway(behind)
        direct = Target("stand-in, direct", behind)
        ours = [Target("gateway, pass-through", url), Target("gateway, two stages", url, "tools", hops=2)]
        parts = [args.only] if args.only else PARTS
        compared = [direct, *ours]
        if not args.no_peers and {"latency", "throughput"} & set(parts):
            compared += _peers(bench, behind)
        if "latency" in parts:
            latency(bench, compared, args.rounds)
        if "throughput" in parts:
            throughput(bench, compared, args.rounds)
        if "streams" in parts:
            streams(bench, behind, url, args.rounds)
        if "memory" in parts:
            memory(bench, process, [*ours, Target("gateway, streams", url, "stream")], args.soak)
        if "overload" in parts:
            overload(bench)
    target = REPOSITORY / "build" / "bench" / "gateway.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(target.read_text()) if args.only and target.exists() else {}
    target.write_text(json.dumps({**before, **bench.results}, indent=2) + "\n")


def latency(bench: Bench, targets: list[Target], rounds: int) -> None:
    """One connection: medians over rounds, and what is added to the requests that one of it takes directly."""
    found: dict[str, list[tuple[float, float]]] = {target.name: [] for target in targets}
    for number in range(rounds + 1):
        for target in random.Random(number).sample(targets, len(targets)):
            seconds = sorted(bench.load(target, 1, 60 if number == 0 else 400)["seconds"])
            if number:
                found[target.name].append((_at(seconds, 0.5), _at(seconds, 0.99)))
    direct = statistics.median(p50 for p50, _ in found[targets[0].name])
    rows = []
    for target in targets:
        p50, p99 = (statistics.median(pair[i] for pair in found[target.name]) for i in (0, 1))
        added = p50 - target.hops * direct
        rows.append({"target": target.name, "p50_ms": p50 * 1e3, "p99_ms": p99 * 1e3, "added_p50_ms": added * 1e3})
        bench.progress.show(
            f"c=1   {target.name:24} p50 {p50 * 1e3:7.2f} ms  p99 {p99 * 1e3:7.2f} ms  added {added * 1e3:6.2f} ms"
        )
    bench.results["latency"] = rows


def throughput(bench: Bench, targets: list[Target], rounds: int) -> None:
    """Requests per second with 16, 64 and 256 connections."""
    rows = []
    for connections in (16, 64, 256):
        found: dict[str, list[tuple[float, float, int]]] = {target.name: [] for target in targets}
        for number in range(max(2, rounds // 2)):
            for target in random.Random(number).sample(targets, len(targets)):
                # A slow peer need not be asked as often.
                total = max(connections * 8, 1500)
                reply = bench.load(target, connections, total)
                seconds = sorted(reply["seconds"])
                failed = total - len(seconds)
                found[target.name].append((len(seconds) / reply["took_s"], _at(seconds, 0.99), failed))
        for target in targets:
            rate, p99 = (statistics.median(each[i] for each in found[target.name]) for i in (0, 1))
            failed = sum(each[2] for each in found[target.name])
            rows.append({"target": target.name, "connections": connections, "per_s": rate, "p99_ms": p99 * 1e3, "failed": failed})
            bench.progress.show(f"c={connections:<4}{target.name:24} {rate:8.0f} req/s  p99 {p99 * 1e3:8.1f} ms  failed {failed}")
    bench.results["throughput"] = rows


def streams(bench: Bench, behind: str, gateway: str, rounds: int) -> None:
    """256 streams at once, 64 words each, 20 or 40 ms apart: frames that arrive, gaps between words, how long words take.

    In step: all words of a beat are sent at once, as an engine does that serves all; the last of them waits until the others are
    forwarded. Spread: every stream has its own beat.
    """
    rows: list[dict[str, Any]] = []
    for mode, body in (("in step", "stream"), ("spread", "spread"), ("spread, 40 ms", "slow")):
        targets = [Target("stand-in, direct", behind, body), Target("gateway", gateway, body)]
        found = [{target.name: _streamed(bench, target, mode) for target in targets} for _ in range(max(3, rounds))]
        for of_round in found:
            rows += of_round.values()
        through, directly = ([each[target.name] for each in found] for target in reversed(targets))
        added = {
            f"added_{name}": statistics.median(a[name] - b[name] for a, b in zip(through, directly, strict=True))
            for name in ("gap_p99_ms", "delay_p50_ms", "delay_p99_ms")
        }
        bench.results.setdefault("streams_added", {})[mode] = added
        told = "  ".join(f"{name.removesuffix('_ms').replace('_', ' ')} {ms:.2f} ms" for name, ms in added.items())
        bench.progress.show(f"256 streams {mode:13} {told}")
    bench.results["streams"] = rows


def _streamed(bench: Bench, target: Target, mode: str) -> dict[str, Any]:
    reply = bench.load(target, 256, 256)
    # The words, the opening and the finish; the stand-in's usage chunk was not asked for of the gateway.
    whole = sum(count for frames, count in reply["frames"].items() if int(frames) >= 66)
    gaps, delays = sorted(reply["gaps"]), sorted(reply["delays"])
    row = {"target": target.name, "mode": mode, "whole": whole}
    for name, values in (("gap", gaps), ("delay", delays)):
        row |= {f"{name}_p50_ms": _at(values, 0.5) * 1e3, f"{name}_p99_ms": _at(values, 0.99) * 1e3}
    bench.progress.show(
        f"256 streams {mode:13} {target.name:18} whole {whole}  gap p50 {row['gap_p50_ms']:.1f}  p99 {row['gap_p99_ms']:.1f} ms  "
        f"delay p50 {row['delay_p50_ms']:.2f}  p99 {row['delay_p99_ms']:.2f} ms"
    )
    return row


def memory(bench: Bench, process: psutil.Process, targets: list[Target], soak_s: float) -> None:
    """Resident memory under a steady load of 500 requests per second and of streams."""
    sizes: list[float] = []
    until = time.monotonic() + soak_s
    while time.monotonic() < until:
        for target in targets:
            bench.load(target, 64, 128 if target.body == "stream" else 2500, rate=500)
        sizes.append(process.memory_info().rss / 2**20)
    bench.results["memory"] = {"soak_s": soak_s, "rss_mib": sizes}
    bench.progress.show(f"memory over {soak_s:.0f} s: {sizes[0]:.0f} MiB after the first load, {sizes[-1]:.0f} MiB at the end")


def overload(bench: Bench) -> None:
    """Three times the load that it can bear, against an engine that takes 20 ms: how much is still answered."""
    _, url = bench.gateway(bench.stand_in(20))
    target = Target("gateway, two stages", url, "tools", hops=2)
    peak = bench.load(target, 64, 2500)
    rate = len(peak["seconds"]) / peak["took_s"]
    reply = bench.load(target, 512, int(rate * 3 * 10), rate * 3)
    answered = len(reply["seconds"]) / reply["took_s"]
    row = {"peak_per_s": rate, "offered_per_s": rate * 3, "answered_per_s": answered, "statuses": reply["statuses"]}
    row["p99_ms"] = _at(sorted(reply["seconds"]), 0.99) * 1e3
    bench.results["overload"] = row
    bench.progress.show(f"overload x3: peak {rate:.0f} req/s, answered {answered:.0f} req/s, {reply['statuses']}")


def _peers(bench: Bench, behind: str) -> Iterator[Target]:
    """The peers that could be installed and started."""
    config = bench.folder / "litellm.yaml"
    params = {"model": "openai/base", "api_base": f"{behind}/v1", "api_key": "any"}
    settings = {"dangerously_permit_weak_or_unset_master_key": True}
    models = [{"model_name": "base", "litellm_params": params}]
    config.write_text(json.dumps({"model_list": models, "general_settings": settings}))
    commands = {
        LITELLM: ["litellm", "--config", str(config), "--port", "{port}", "--num_workers", "1"],
        VLLM_ROUTER: ["vllm-router", "--worker-urls", behind, "--port", "{port}"],
    }
    for requirement, (name, *options) in commands.items():
        try:
            folder = _installed(requirement)
            _, url = bench.start([str(folder / "bin" / name), *options], core=0, path="/health/liveliness")
            yield Target(requirement.partition("=")[0], url)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            bench.progress.show(f"left out: {requirement}: {str(error)[-300:]}")
            bench.results.setdefault("left_out", []).append(requirement)


def _installed(requirement: str) -> Path:
    folder = PEERS / requirement.replace("[", "-").replace("]", "-")
    if not (folder / "whole").exists():
        uv = str(REPOSITORY / ".venv" / "bin" / "uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), requirement], check=True)
        (folder / "whole").touch()
    return folder


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


if __name__ == "__main__":
    main()
