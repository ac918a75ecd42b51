"""Who is known by which key, what they may do, and how a key is made."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.gateway.keys import Caller, Keys, key_digest, main, read_callers, read_keys
from services.shared.contracts.errors import Forbidden, Unauthorized

NOW = datetime(2027, 1, 1, tzinfo=UTC)
KEY = "af-" + "k" * 43


def caller(**fields: object) -> Caller:
    return Caller.model_validate({"name": "team-a", "sha256": key_digest(KEY), **fields})


def written(folder: Path, text: str) -> Path:
    file = folder / "keys.yaml"
    file.write_text(text)
    return file


def test_without_keys_everybody_is_anonymous_and_may_do_everything():
    keys = Keys()
    assert keys.is_open
    assert keys.policy.startswith("open")
    for sent in (None, "", "whatever a framework sends"):
        found = keys.caller(sent, NOW)
        assert found.name == "anonymous"
        found.permit(None)
        found.permit("filesystem")


def test_a_key_names_its_caller():
    assert Keys([caller()]).caller(KEY, NOW).name == "team-a"


@pytest.mark.parametrize("sent", [None, "", "wrong", KEY[:-1], KEY + "x", KEY.upper(), key_digest(KEY), "\ud800"])
def test_any_other_key_is_refused_and_not_repeated(sent):
    with pytest.raises(Unauthorized) as raised:
        Keys([caller()]).caller(sent, NOW)
    assert not sent or sent not in raised.value.message


def test_an_expired_key_says_so():
    keys = Keys([caller(expires="2027-01-01T00:00:00Z")])
    assert keys.caller(KEY, datetime(2026, 12, 31, tzinfo=UTC))
    with pytest.raises(Unauthorized, match="'team-a' expired at 2027-01-01T00:00Z"):
        keys.caller(KEY, NOW)


def test_callers_without_a_key_are_welcome_only_where_the_file_says_so_and_a_wrong_key_never_is():
    keys = Keys([caller(), Caller(name="anonymous", requests_per_minute=1)])
    assert keys.caller(None, NOW).requests_per_minute == 1
    with pytest.raises(Unauthorized):
        keys.caller("wrong", NOW)


def test_a_name_may_have_two_keys_while_one_replaces_the_other():
    keys = Keys([caller(), caller(sha256=key_digest("another"))])
    assert keys.caller(KEY, NOW).name == keys.caller("another", NOW).name == "team-a"


@pytest.mark.parametrize(
    ("fields", "may", "may_not"),
    [
        ({}, [None, "a", "b"], []),
        ({"toolsets": ["a"]}, [None, "a"], ["b"]),
        ({"toolsets": ["a"], "base_model": False}, ["a"], [None, "b"]),
        ({"toolsets": []}, [None], ["a"]),
        ({"base_model": False}, ["a", "b"], [None]),
    ],
)
def test_a_key_is_good_for_its_toolsets(fields, may, may_not):
    for toolset in may:
        caller(**fields).permit(toolset)
    for toolset in may_not:
        with pytest.raises(Forbidden, match="team-a"):
            caller(**fields).permit(toolset)


def test_the_command_prints_the_key_once_and_keeps_only_its_hash(tmp_path, capsys):
    file = written(tmp_path, "# who may come in\n- name: old\n  sha256: " + "a" * 64)
    limits = ["--requests-per-minute", "60", "--tokens-per-minute", "1000", "--tokens-per-day", "9999", "--expires", "2028-06-30"]
    main(["new", "--file", str(file), "--name", "team-b", "--toolsets", "files, mail", "--no-base-model", *limits])
    key = capsys.readouterr().out.strip()
    assert key.startswith("af-")
    assert len(key) == 46
    assert key not in file.read_text()
    assert file.read_text().startswith("# who may come in\n")
    made = read_keys(file)[1]
    assert Keys(read_keys(file)).caller(key, NOW) == made
    assert made.toolsets == {"files", "mail"}
    assert not made.base_model
    assert (made.requests_per_minute, made.tokens_per_minute, made.tokens_per_day) == (60, 1000, 9999)
    assert made.expires == datetime(2028, 6, 30, tzinfo=UTC)
    assert [path.name for path in tmp_path.iterdir()] == ["keys.yaml"]


def test_the_command_says_which_file_it_wrote_and_who_reads_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["new", "--name", "team-a"])
    assert len(read_keys(tmp_path / "keys.yaml")) == 1
    assert (
        "its hash is in keys.yaml; a gateway reads that file when AGENTFLUX_GATEWAY_KEYS_FILE names it" in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["keys.yaml", "keys.json"])
def test_the_command_makes_a_file_that_only_its_owner_reads(name, tmp_path, capsys):
    file = tmp_path / name
    for _ in range(2):
        main(["new", "--file", str(file), "--name", "team-a"])
    assert len(set(capsys.readouterr().out.split())) == 2
    assert len(read_keys(file)) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    if file.suffix == ".json":
        assert len(json.loads(file.read_text())) == 2


@pytest.mark.parametrize(
    "arguments", [["--name", "a b"], ["--name", "a", "--requests-per-minute", "0"], ["--name", "a", "--expires", "soon"]]
)
def test_the_command_refuses_what_no_gateway_would_read(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["new", "--file", str(tmp_path / "keys.yaml"), *arguments])
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- name: [", "line"),
        ("- name: a\n  key: hunter2-hunter2", "0.key"),
        ("- name: hunter2 hunter2\n  sha256: " + "a" * 64, "0.name"),
        ("- name: a\n  sha256: hunter2", "0.sha256"),
        ("- name: a\n  requests_per_minute: 0", "0.requests_per_minute"),
        ("hunter2", "list"),
        ("", "no keys"),
        ("- name: a\n- name: b", "both have none"),
        (f"- name: a\n  sha256: {'a' * 64}\n- name: b\n  sha256: {'a' * 64}", "'a' has the same"),
        ("!!python/object:os.system hunter2", "not YAML"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_and_without_quoting_it(text, said, tmp_path):
    file = written(tmp_path, text)
    with pytest.raises(ValueError, match=r"keys\.yaml") as raised:
        read_keys(file)
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_one_key_may_come_from_the_environment_or_a_mounted_secret(tmp_path):
    file = written(tmp_path, KEY + "\n")
    for callers in (read_callers(None, KEY, None), read_callers(None, None, file)):
        assert Keys(callers).caller(KEY, NOW).name == "default"
    with pytest.raises(ValueError, match="shorter than 20") as raised:
        read_callers(None, "hunter2", None)
    assert "hunter2" not in str(raised.value)


def test_no_hash_shows_where_a_caller_is_printed():
    assert key_digest(KEY) not in repr(caller())
