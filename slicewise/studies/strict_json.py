"""JSON that others wrote: duplicate keys, NaN and bombs are refused with a line that says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from slicewise.errors import SourceError

MAX_BYTES = 16 << 20


def load_strict(path: Path) -> Any:
    """Read a small UTF-8 JSON file.

    Raises:
        SourceError: Unreadable, not JSON, over ``MAX_BYTES``, nested too deep, with one key twice in an object
            or with a NaN or infinite number; names the file.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{path} is larger than {MAX_BYTES >> 20} MB", "this file should be a short list")
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})", "check the file's permissions") from error
    except RecursionError as error:
        raise SourceError(f"{path} is nested too deep", "write it as a flat list or object") from error
    except ValueError as error:
        raise SourceError(f"{path} is not valid JSON ({error})", "correct the file in a text editor") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key[:40]!r} is there twice in one object")
        result[key] = value
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
