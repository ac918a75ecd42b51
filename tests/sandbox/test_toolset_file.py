"""toolset.yaml: what each entry may be, and that a wrong one is named with its value and what is possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.sandbox.toolset_file import ToolsetFile, read_toolset_file


def written(tmp_path: Path, text: str) -> ToolsetFile:
    path = tmp_path / "toolset.yaml"
    path.write_text(text)
    return read_toolset_file(path)


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("command: [", "it is no YAML"),
        ("command: !!python/object/apply:os.system [id]", "it is no YAML"),
        ("- " * 3000, "it is no YAML|must be a mapping"),
        ("[]", "must be a mapping"),
        ("", "must be a mapping"),
        ("description: x", "lacks 'command'"),
        ("command: rm -rf", "command must be a list, not 'rm -rf': a program and its arguments"),
        ("command: [[x]]", r"command\.0"),
        ('command: ["a\\0b"]', "NUL"),
        ("{command: [x], colour: red}", r"unknown entries \[colour\]; known are .*command"),
        ("{command: [x], limits: {walls: 1}}", r"limits: unknown entries \['walls'\]; known are .*wall_s"),
        ("{command: [x], limits: {wall_s: soon}}", "limits: wall_s must be a number above 0, not 'soon'"),
        ("{command: [x], limits: {wall_s: .nan}}", "wall_s must be a number"),
        ("{command: [x], limits: {wall_s: -1}}", "wall_s must be a number"),
        ("{command: [x], limits: {processes: true}}", "processes must be a number"),
        ("{command: [x], limits: {processes: 1.5}}", "processes must be a whole number"),
        ("{command: [x], limits: [1]}", "limits: must be a valid dictionary"),
        ("{command: [x], scope: user}", "scope: must be 'call', 'session', 'tenant' or 'shared', not 'user'"),
        ("{command: [x], scope: shared}", "scope: a server can be shared .* `workspace: false`"),
        ("{command: [x], workspace: 'no'}", "workspace: must be a valid boolean, not 'no'"),
        ("{command: [x], environment: {A: [1]}}", r"environment\.A: must be a valid string"),
        ("{command: [x], environment: {A: true}}", r"environment\.A: must be a valid string, not True"),
        ("{command: [x], environment: {LD_PRELOAD: x}}", "'LD_PRELOAD' cannot be a variable here"),
        ("{command: [x], environment: {'A B': x}}", "'A B' cannot be a variable here"),
        ("{command: [x], requires: [../x]}", "'../x' must be a path inside"),
        ("{command: [x], requires: [/x]}", "'/x' must be a path inside"),
        ("{command: [x], package: {registry: cargo, name: a, version: '1'}}", r"package\.registry: must be 'npm' or 'pypi'"),
        ("{command: [x], package: {registry: npm, name: a}}", r"lacks 'package\.version'"),
        ("{command: [x], package: {registry: npm, name: a, version: latest}}", r"package\.version"),
        ("{command: [x], package: {registry: npm, name: a, version: '1', x: y}}", r"unknown entries \[package\.x\]; known are"),
        ("{command: [x], network: ['*.example.com:443']}", r"network\.0: .*must be host:port"),
        ("{command: [x], network: [example.com]}", "must be host:port"),
        ("{command: [x], network: ['example.com:0']}", "must be host:port"),
        ("{command: [x], network: ['example.com:65536']}", "must be host:port"),
        ("{command: [x], network: ['EXAMPLE.com:443']}", "must be host:port"),
        ("{command: [x], network: ['169.254.169.254:80']}", "must name a host, not an address"),
        ("{command: [x], network: ['2130706433:80']}", "must name a host, not an address"),
        ("{command: [x], network: ['[::1]:80']}", "must be host:port"),
        ("{command: [x], mounts: [{source: data, target: /data}]}", r"mounts\.0\.source: 'data' must be an absolute path"),
        ("{command: [x], mounts: [{source: /, target: /data}]}", "must be an absolute path of the host below /"),
        ("{command: [x], mounts: [{source: /srv/../etc, target: /data}]}", r"without \.\."),
        ("{command: [x], mounts: [{source: /srv, target: /workspace/x}]}", "is below /workspace"),
        ("{command: [x], mounts: [{source: /srv, target: /tmp}]}", "is below /tmp"),
        ("{command: [x], mounts: [{source: /srv, target: /data/../etc}]}", "must be an absolute path"),
        ("{command: [x], mounts: [{source: /srv, target: /}]}", "must be an absolute path"),
        ("{command: [x], mounts: [{source: /a, target: /d}, {source: /b, target: /d}]}", "mounts: /d is given more than once"),
        ("{command: [x], secrets: [{name: A, file: ../a, as: environment}]}", "'../a' must be a file's bare name"),
        ("{command: [x], secrets: [{name: A, file: a, as: argument}]}", r"secrets\.0\.as: must be 'environment', 'file' or"),
        ("{command: [x], secrets: [{name: ../A, file: a, as: file}]}", "must be a file's bare name"),
        ("{command: [x], secrets: [{name: A-B, file: a, as: environment}]}", "cannot be a variable here"),
        ("{command: [x], environment: {A: '1'}, secrets: [{name: A, file: a, as: environment}]}", "A is given more than once"),
        ("{command: [x], warm: -1}", "warm: must be greater than or equal to 0"),
        ("{url: 'ftp://example.com/'}", r"url: .*must be http\(s\)://"),
        ("{url: 'https://user:pass@example.com/mcp'}", "without user name"),
        ("{url: 'https://example.com/mcp', command: [x]}", "url: a server that runs elsewhere cannot have command"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named_with_its_value_and_what_is_possible(tmp_path: Path, yaml: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        written(tmp_path, yaml)
    assert len(str(caught.value)) < 1000


def test_every_wrong_entry_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"command must be a list.*; scope: must be"):
        written(tmp_path, "{command: x, scope: y}")


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 262144"):
        written(tmp_path, "#" * (256 * 1024 + 1))


def test_a_shared_server_that_can_keep_nothing_is_fine(tmp_path: Path) -> None:
    assert written(tmp_path, "{command: [x], scope: shared, workspace: false}").scope == "shared"


def test_a_server_elsewhere_has_its_url(tmp_path: Path) -> None:
    assert written(tmp_path, "url: https://example.com:8443/mcp").url == "https://example.com:8443/mcp"
