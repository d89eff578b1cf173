"""Print what the project and the named extras of ``pyproject.toml`` need: ``python needs.py EXTRA...``.

Installed before the sources are copied, so that a changed source does not install everything again.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def needs(extras: list[str]) -> list[str]:
    """The requirements, in the file's order."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = [entry for extra in extras for entry in project["optional-dependencies"][extra]]
    return [*project["dependencies"], *optional]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{entry}\n" for entry in needs(sys.argv[1:])))
