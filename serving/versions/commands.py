"""The verb ``slicewise versions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicewise.cli_options import Json, emit

EXAMPLE = """List the versions of a models folder, add one, or choose the one that is served by default.

Example: slicewise versions models

Example: slicewise versions add models runs/my-run/bundle

Example: slicewise versions use models 1
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("versions", help=EXAMPLE)(versions)


def versions(
    words: Annotated[
        list[str], typer.Argument(metavar="[add|use] FOLDER [BUNDLE|NUMBER]", help="What to do; FOLDER alone lists.")
    ],
    json: Json = False,
) -> None:
    """List, add or use."""
    from slicewise.errors import UsageError

    verbs = {"add": _add, "use": _use}
    verb = words[0] if words[0] in verbs else ""
    rest = words[1:] if verb else words
    if len(rest) != (2 if verb else 1):
        raise UsageError(
            f"versions: {' '.join(words)!r} is not understood",
            "use 'versions FOLDER', 'versions add FOLDER BUNDLE' or 'versions use FOLDER NUMBER'",
        )
    folder = Path(rest[0])
    if verb:
        verbs[verb](folder, rest[1], json)
    else:
        _list(folder, json)


def _list(folder: Path, json: bool) -> None:
    from serving.versions.folder import describe_version, read_current, version_numbers

    current, numbers = read_current(folder), version_numbers(folder)
    default = current if current is not None else max(numbers, default=None)
    rows = [describe_version(folder, number) for number in numbers]
    lines = [
        f"{'*' if row['version'] == default else ' '} {row['version']:>4}  {row['digest'][:12] or 'damaged':12}  "
        f"{row['created']}"
        for row in rows
    ]
    text = "\n".join(lines) or "no versions"
    emit({"folder": str(folder), "default": default, "versions": rows}, as_json=json, text=text)


def _add(folder: Path, bundle: str, json: bool) -> None:
    from serving.versions.folder import add_version
    from slicewise.inference.bundle import find_bundle

    number = add_version(folder, find_bundle(Path(bundle)))
    result = {"folder": str(folder), "version": number}
    emit(
        result, as_json=json, text=f"version {number}; make it the default: slicewise versions use {folder} {number}"
    )


def _use(folder: Path, number: str, json: bool) -> None:
    from serving.versions.folder import use_version
    from slicewise.errors import UsageError

    if not number.isdecimal():
        raise UsageError(f"versions: {number!r} is not a version", "use the number of one of its sub-folders")
    use_version(folder, int(number))
    emit({"folder": str(folder), "default": int(number)}, as_json=json, text=f"the default is version {number} now")
