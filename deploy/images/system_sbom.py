"""Writes the bill of materials (CycloneDX) of what an image has beside our own packages: `python3 system_sbom.py FILE`.

That is every Debian or Ubuntu package, the interpreter that runs this, and every distribution that it can import: the base's own.
Only the standard library, as it runs while an image is built.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import quote

Component = dict[str, str]


def debian_components(listed: str, vendor: str) -> list[Component]:
    """From lines of name, version and architecture, with a tab between."""
    rows = [line.split("\t") for line in listed.splitlines()]
    return [
        {"type": "library", "name": name, "version": version, "purl": f"pkg:deb/{vendor}/{name}@{quote(version)}?arch={arch}"}
        for name, version, arch in rows
    ]


def python_components() -> list[Component]:
    """This interpreter, and what it can import."""
    named = ((each.metadata["Name"], each.version) for each in distributions())
    # What was not removed as a whole has no name any more.
    found = {(name.lower().replace("_", "-"), version) for name, version in named if name}
    own = platform.python_version()
    return [
        {"type": "application", "name": "python", "version": own, "purl": f"pkg:generic/python@{own}"},
        *(
            {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{quote(version)}"}
            for name, version in found
        ),
    ]


def bill(components: list[Component]) -> str:
    """The document; the same components give the same text."""
    ordered = sorted(components, key=lambda component: component["purl"])
    numbered = [{"bom-ref": component["purl"], **component} for component in ordered]
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": numbered}, indent=1) + "\n"


def main() -> None:
    """Asks dpkg and this interpreter, and writes the file."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    asked = ["dpkg-query", "--show", "--showformat", "${Package}\\t${Version}\\t${Architecture}\\n"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    Path(sys.argv[1]).write_text(bill([*debian_components(listed, release["ID"].strip('"')), *python_components()]))


if __name__ == "__main__":
    main()
