"""Options that many verbs share, and how a verb gives its result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Mode = Annotated[str, typer.Option(help="smoke, quick, baseline or production.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A YAML file with the keys to change.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key; repeatable.")
]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help="A folder of scans, an archive (.zip, .tar, .tar.gz), s3://bucket/prefix, msd, kaggle, "
        "kaggle:owner/name or phantom; repeatable. Default: phantom.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="The folder to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON result to stdout.")]


def emit(result: dict[str, Any], *, as_json: bool, text: str = "") -> None:
    """Write a verb's result: JSON to stdout, or one line for people."""
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2, default=str) + "\n")
    elif text:
        sys.stdout.write(text + "\n")
