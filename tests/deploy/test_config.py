"""`python -m deploy.config`: what is wrong is said before anything starts, and the reference page is what the code says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.config import EVERYTHING, main, reference
from deploy.local.plan import REPOSITORY

PAGE = REPOSITORY / "deploy" / "CONFIGURATION.md"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AGENTFLUX_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"AGENTFLUX_GATEWAY_PROT": "8030"}, "AGENTFLUX_GATEWAY_PROT is no setting; did you mean AGENTFLUX_GATEWAY_PORT?"),
        ({"AGENTFLUX_GATEWAY_PORT": "http"}, "AGENTFLUX_GATEWAY_PORT: Input should be a valid integer"),
        ({"AGENTFLUX_GATEWAY_LADDER__WARM": "3"}, "AGENTFLUX_GATEWAY_LADDER"),
        ({"AGENTFLUX_GATEWAY_KEYS_FILE": "/nowhere"}, "AGENTFLUX_GATEWAY_KEYS_FILE is /nowhere, which cannot be read"),
        ({"AGENTFLUX_GATEWAY_REDIS_URL_FILE": "/nowhere"}, "AGENTFLUX_GATEWAY_REDIS_URL_FILE is /nowhere, which cannot be read"),
        ({"AGENTFLUX_ENGINE_DEVICE": "tpu"}, "AGENTFLUX_ENGINE_MODEL_DIR: Field required"),
        ({"AGENTFLUX_PORT_OFFSET": "x"}, "AGENTFLUX_PORT_OFFSET: Input should be a valid integer"),
        ({"AGENTFLUX_MODELDIR": "/models"}, "AGENTFLUX_MODELDIR is no setting; did you mean AGENTFLUX_MODEL_DIR?"),
    ],
)
def test_what_is_wrong_is_named(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["check"]) == 1
    assert said in capsys.readouterr().out


def test_what_is_right_passes_and_what_is_not_ours_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "AGENTFLUX_GATEWAY_PORT": "8030", "AGENTFLUX_GATEWAY_LADDER__WARN": "2", "AGENTFLUX_ELSEWHERE": "1",
        "AGENTFLUX_ENGINE_MODEL_DIR": "/models", "AGENTFLUX_ENGINE_PLUGIN_KERNELS": "0", "AGENTFLUX_PORT": "8031",
        "AGENTFLUX_ENGINE_MEMORY": "8g",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert main(["check"]) == 0, capsys.readouterr().out


def test_an_env_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--env-file", str(tmp_path / "none.env")])
    assert "none.env cannot be read: [Errno 2]" in capsys.readouterr().err


def test_an_env_file_is_read_as_compose_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / ".env"
    file.write_text('# ports\nAGENTFLUX_GATEWAY_PORT="8031"\n\nAGENTFLUX_SELECTOR_PROT=1\n')
    try:
        assert main(["check", "--env-file", str(file)]) == 1
    finally:
        for name in ("AGENTFLUX_GATEWAY_PORT", "AGENTFLUX_SELECTOR_PROT"):
            os.environ.pop(name, None)
    assert capsys.readouterr().out == "AGENTFLUX_SELECTOR_PROT is no setting; did you mean AGENTFLUX_SELECTOR_PORT?\n"


def test_a_file_for_a_container_is_looked_for_where_compose_mounts_it_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Set first, so that what the file sets is taken back at the end.
    monkeypatch.setenv("AGENTFLUX_GATEWAY_API_KEY_FILE", "")
    monkeypatch.setenv("AGENTFLUX_VALKEY_IMAG", "")
    file = tmp_path / ".env"
    file.write_text("AGENTFLUX_GATEWAY_API_KEY_FILE=/run/agentflux/no_such_key\nAGENTFLUX_VALKEY_IMAG=valkey\n")
    assert main(["check", "--env-file", str(file)]) == 1
    said = capsys.readouterr().out.splitlines()
    here = REPOSITORY / "deploy" / "compose" / "secrets" / "no_such_key"
    assert f"AGENTFLUX_GATEWAY_API_KEY_FILE is {here}, which cannot be read" in said
    assert "AGENTFLUX_VALKEY_IMAG is no setting; did you mean AGENTFLUX_VALKEY_IMAGE?" in said


@pytest.mark.parametrize("service", ["gateway", "selector", "callcache", "sandbox"])
def test_a_service_does_not_start_with_a_name_that_sets_nothing(service: str) -> None:
    environment = {**os.environ, f"AGENTFLUX_{service.upper()}_LOG_LEVLE": "debug"}
    ended = subprocess.run(
        [sys.executable, "-m", f"services.{service}"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert f"did you mean AGENTFLUX_{service.upper()}_LOG_LEVEL?" in ended.stderr


def test_a_secret_in_a_file_is_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "redis"
    secret.write_text("redis://:hush@valkey:6379/0\n")
    monkeypatch.setenv("AGENTFLUX_CALLCACHE_REDIS_URL_FILE", str(secret))
    settings = EVERYTHING["callcache"]()
    assert getattr(settings, "redis_url") == "redis://:hush@valkey:6379/0"  # noqa: B009


def test_a_wrong_secret_is_not_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AGENTFLUX_CALLCACHE_REDIS_URL", "http://:hush@valkey")
    assert main(["check"]) == 1
    assert "hush" not in capsys.readouterr().out


def test_the_page_says_what_the_code_says() -> None:
    assert PAGE.read_text() == reference(), "write it anew: python -m deploy.config reference > deploy/CONFIGURATION.md"


def test_every_setting_is_explained() -> None:
    silent = [
        f"{settings.__name__}.{name}"
        for settings in EVERYTHING.values()
        for name, field in settings.model_fields.items()
        if not field.description
    ]
    assert not silent, "each needs a sentence under it"
