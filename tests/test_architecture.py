"""The folders keep the rules of tests/architecture.py: here, and the rules notice when they are broken."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import (
    ROOT,
    Rule,
    Sources,
    contracts_touch_nothing,
    every_service_has_its_roles,
    ideas_have_no_wires,
    module_name,
    no_two_modules_import_each_other,
    only_app_constructs_settings,
    only_app_reads_the_environment,
    read_sources,
    services_do_not_import_each_other,
    settings_explain_themselves,
    shared_imports_no_service,
)

# In pieces, so that this file does not name them.
REGISTRY_HOSTS = ["py" + "pi.org", "files.python" + "hosted.org", "registry.npm" + "js"]


def example(files: dict[str, str]) -> Sources:
    return {f"services/{name}.py": ast.parse(text) for name, text in files.items()}


BAD_EXAMPLES: dict[Rule, list[Sources]] = {
    services_do_not_import_each_other: [
        example({"selector/voting": "from services.gateway.routing import route"}),
        example({"selector/app": "def late():\n    import services.gateway"}),
        example({"selector/app": "from services import gateway"}),
        example({"selector/drivers/x": "from ...gateway import routing"}),
    ],
    shared_imports_no_service: [example({"shared/clients/x": "from services.engine.launch import command"})],
    contracts_touch_nothing: [
        example({"shared/contracts/x": "import httpx"}),
        example({"shared/contracts/x": "import asyncio\nasync def run(): await asyncio.create_subprocess_exec('x')"}),
        example({"shared/contracts/x": "from services.shared.clients.http import HttpClient"}),
    ],
    ideas_have_no_wires: [
        example({"selector/voting": "import subprocess"}),
        example({"selector/voting": "from redis.asyncio import Redis"}),
        example({"selector/voting": "from asyncio import open_connection"}),
        example({"selector/voting": "def late():\n    from services.shared.clients.engine import EngineClient"}),
    ],
    only_app_reads_the_environment: [
        example({"selector/voting": "import os\nx = os.environ['X']"}),
        example({"shared/chassis/x": "from os import getenv"}),
    ],
    only_app_constructs_settings: [
        example(
            {
                "selector/settings": "class SelectorSettings(ServiceSettings): ...",
                "selector/voting": "from services.selector import settings\nlimit = settings.SelectorSettings()",
            }
        )
    ],
    settings_explain_themselves: [
        example({"selector/settings": "class S(ServiceSettings):\n    a: int = 1\n    b: int = 2\n    'Says what b is.'"}),
        example({"selector/settings": "class S(ServiceSettings):\n    a: int = 1"}),
    ],
    no_two_modules_import_each_other: [
        example({"selector/a": "from services.selector import b", "selector/b": "from services.selector.a import x"}),
        example(
            {
                "selector/a": "import services.selector.b",
                "selector/b": "import services.selector.c",
                "selector/c": "from . import a",
            }
        ),
    ],
    every_service_has_its_roles: [
        example({"selector/app": "", "selector/settings": "", "selector/api/chat": "", "selector/__main__": ""})
    ],
}
RULES = list(BAD_EXAMPLES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_services_keep_the_rule(rule):
    violations = list(rule(read_sources()))
    assert not violations, "\n".join(["", *violations])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_notices_a_bad_example(rule):
    for sources in BAD_EXAMPLES[rule]:
        assert list(rule(sources)), f"{rule.__name__} overlooks {[ast.unparse(tree) for tree in sources.values()]}"


def test_the_rules_let_a_good_example_pass():
    good = example(
        {
            "selector/__init__": "",
            "selector/__main__": "from services.selector.app import main",
            "selector/app": "import os\nfrom services.selector import api, settings\nsettings.S(os.environ)",
            "selector/api": "from fastapi import APIRouter\nfrom services.selector.voting import tally",
            "selector/settings": "class S(ServiceSettings):\n    a: int = 1\n    'Seconds until it gives up; 0 means never.'",
            "selector/voting": "if TYPE_CHECKING:\n    from services.selector import api\nimport asyncio\nasyncio.timeout(1)",
            "shared/contracts/x": "import json",
        }
    )
    assert [violation for rule in RULES for violation in rule(good)] == []


# Imports the modules named as arguments and says which of them reached out of the process while it was imported.
IMPORT_WATCHER = """
import importlib, sys
REACHING_OUT = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen",
                "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty")
current = None
def watch(event, arguments):
    if event in REACHING_OUT and current:
        print(f"{current}: importing it causes {event}{arguments!r:.200}. Move that into a function which app.py calls.")
sys.addaudithook(watch)
for current in sys.argv[1:]:
    try:
        importlib.import_module(current)
    except Exception as error:
        print(f"{current}: importing it fails with {type(error).__name__}: {error}. Importing a module does nothing.")
"""


def what_importing_causes(*modules: str, folder: Path = ROOT) -> str:
    command = [sys.executable, "-c", IMPORT_WATCHER, *modules]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_a_module_opens_no_socket_and_starts_no_process():
    modules = [module_name(path) for path in read_sources() if "/vllm_plugin/" not in path and not path.endswith("__main__.py")]
    said = what_importing_causes(*modules)
    assert not said, "\n" + said


def test_the_import_watcher_notices_a_bad_example(tmp_path):
    (tmp_path / "starts.py").write_text("import subprocess\nsubprocess.run(['true'])")
    (tmp_path / "connects.py").write_text("import socket\nsocket.socket().bind(('127.0.0.1', 0))")
    (tmp_path / "fails.py").write_text("raise RuntimeError('no GPU')")
    said = what_importing_causes("starts", "connects", "fails", folder=tmp_path)
    assert [line.split(":")[0] for line in said.splitlines()] == ["starts", "connects", "fails"]


def test_no_file_names_a_package_registry():
    """An installation on a closed network has its own mirror: where packages come from is the machine's configuration."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile("|".join(re.escape(host) for host in REGISTRY_HOSTS).encode())
    violations = [
        f"{path.relative_to(ROOT)}:{number} names {found[0].decode()}. Leave the host out: the machine's own index is used."
        for name in listed.stdout.decode().split("\0")
        if name and (path := ROOT / name).is_file()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if (found := pattern.search(line))
    ]
    assert not violations, "\n".join(["", *violations])
