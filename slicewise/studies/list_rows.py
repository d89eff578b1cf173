"""The rows of a ``studies.csv`` or ``studies.json``: syntax and names checked, meaning not yet."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicewise.config import MODALITIES
from slicewise.errors import SourceError
from slicewise.studies.strict_json import MAX_BYTES, load_strict

FILES = (*MODALITIES, "label")
KEYS = ("study_id", "patient_id", *FILES, "tumour", "grade", "labels")
SPELLINGS = {"tumor": "tumour"}
MAX_CELL = 4096


@dataclass(frozen=True)
class Row:
    """One study as listed: where it stands in the list, for errors, and its filled-in keys."""

    place: str
    cells: Mapping[str, str]


def csv_rows(path: Path) -> Iterator[Row]:
    """Rows of a comma-, semicolon- or tab-separated file with a header."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{path} is larger than {MAX_BYTES >> 20} MB", "list one study per line")
        text = path.read_bytes().decode("utf-8-sig")
        header_line = text.partition("\n")[0]
        delimiter = max(",;\t", key=header_line.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text", "save it as CSV in UTF-8") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})", "check the file's permissions") from error
    except csv.Error as error:
        raise SourceError(f"{path} is no valid CSV ({error})", "save it again as plain CSV") from error
    if not lines:
        return
    header = [_key(cell.strip(), f"{path}, line {lines[0][0]}") for cell in lines[0][1]]
    _refuse_repeated_columns(header, path)
    for number, line in lines[1:]:
        place = f"{path}, line {number}"
        if len(line) > len(header):
            raise SourceError(f"{place}: {len(line)} cells under {len(header)} columns", "quote cells with commas")
        cells = {key: _text(cell.strip(), key, place) for key, cell in zip(header, line, strict=False)}
        yield Row(place, {key: cell for key, cell in cells.items() if cell})


def json_rows(path: Path) -> Iterator[Row]:
    """Items of a JSON list of objects; null counts as not given."""
    items = load_strict(path)
    if not isinstance(items, list):
        raise SourceError(f"{path} is not a list", 'write [{"study_id": "a", "flair": "a_flair.nii.gz"}, …]')
    for number, item in enumerate(items, start=1):
        place = f"{path}, item {number}"
        if not isinstance(item, dict):
            raise SourceError(f"{place} is not an object", 'write {"study_id": "a", "flair": "a_flair.nii.gz"}')
        cells: dict[str, str] = {}
        for name, value in item.items():
            key = _key(name, place)
            if key in cells:
                raise SourceError(f"{place}: {key} is given twice", "keep one")
            if value is not None:
                cells[key] = _json_text(value, key, place)
        yield Row(place, cells)


def _json_text(value: Any, key: str, place: str) -> str:
    if key == "tumour" and isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str):
        kind = {dict: "an object", list: "a list", bool: "true or false"}.get(type(value), "a number")
        raise SourceError(f"{place}: {key} is {kind}, not text", f'write "{key}": "…"')
    return _text(value, key, place)


def _text(value: str, key: str, place: str) -> str:
    if len(value) > MAX_CELL or not value.isprintable():
        raise SourceError(f"{place}: {key} is too long or has unprintable characters", "write plain text")
    return value


def _key(name: str, place: str) -> str:
    """A column's or key's name, any case; one that nobody knows is refused with the nearest known one."""
    key = name.lower()
    key = SPELLINGS.get(key, key)
    if key in KEYS:
        return key
    near = difflib.get_close_matches(key[:40], KEYS, n=1)
    cure = f"did you mean {near[0]}?" if near else f"known are {', '.join(KEYS)}"
    raise SourceError(f"{place}: unknown name {name[:40]!r}", cure)


def _refuse_repeated_columns(header: Sequence[str], path: Path) -> None:
    twice = sorted({key for key in header if header.count(key) > 1})
    if twice:
        raise SourceError(f"{path}: the column {twice[0]} is there twice", "keep one")
