"""Plain NIfTI files whose modalities a small ``studies.csv`` or ``studies.json`` names."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from slicewise.config import MODALITIES
from slicewise.errors import SourceError
from slicewise.studies.labels import BRATS, SCHEMES
from slicewise.studies.list_rows import FILES, KEYS, Row, csv_rows, json_rows
from slicewise.studies.study import StudyRecord

logger = logging.getLogger(__name__)

CSV_NAME, JSON_NAME = "studies.csv", "studies.json"
ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
TRUTH = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def is_list(path: PurePosixPath) -> bool:
    """Whether a file of a source is a list of studies: it lies at the top and has one of the two names."""
    return str(path) in (CSV_NAME, JSON_NAME)


def read_listed(folder: Path, source: str) -> list[StudyRecord] | None:
    """Studies named by ``studies.csv`` or ``studies.json`` in ``folder``; None where there is neither.

    Args:
        folder: The source; paths in the list are relative to it.
        source: The source's short name.

    Raises:
        SourceError: Both lists are there, or one is wrong; names the line or item, the key and the cure.
    """
    there = [folder / name for name in (CSV_NAME, JSON_NAME) if (folder / name).is_file()]
    if not there:
        return None
    if len(there) == 2:
        raise SourceError(f"{folder} has both {CSV_NAME} and {JSON_NAME}", "keep the one that is right")
    rows = list(csv_rows(there[0]) if there[0].name == CSV_NAME else json_rows(there[0]))
    if not rows:
        raise SourceError(f"{there[0]} lists no study", f"write one study per line or item: {', '.join(KEYS)}")
    records = [_record(row, source, folder) for row in rows]
    _refuse_doubles(rows, records)
    return records


def _record(row: Row, source: str, folder: Path) -> StudyRecord:
    study_id = _id(row, "study_id")
    if study_id is None:
        raise SourceError(f"{row.place}: study_id is missing", "give every study a name")
    files = {key: _file(row, key, folder) for key in FILES if key in row.cells}
    images = {name: (files[name],) for name in MODALITIES if name in files}
    if not images:
        message = f"{row.place}: study {study_id} names no image"
        raise SourceError(message, f"fill in at least one of {', '.join(MODALITIES)}")
    scheme = SCHEMES[_choice(row, "labels", tuple(SCHEMES)) or "brats"]
    return StudyRecord(
        study_id=study_id,
        patient_id=_id(row, "patient_id") or study_id,
        source=source,
        layout="nifti",
        images=images,
        labels=(files["label"],) if "label" in files else (),
        tumour=_tumour(row, labelled="label" in files),
        grade=_grade(row),
        **(scheme.record_fields() if scheme is not BRATS and "label" in files else {}),
    )


def _id(row: Row, key: str) -> str | None:
    value = row.cells.get(key)
    if value is not None and not ID.match(value):
        message = f"{row.place}: {key} {value[:60]!r} is not a plain name"
        raise SourceError(message, "use letters, digits, '.', '_' and '-', at most 100, no leading dot")
    return value


def _file(row: Row, key: str, folder: Path) -> str:
    """A path of the list in POSIX form, checked to lie in the folder and to be there."""
    given = row.cells[key]
    path = PurePosixPath(given.replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or ":" in path.parts[0] if path.parts else True
    if outside:
        message = f"{row.place}: {key} names {given[:100]!r}, outside the folder"
        raise SourceError(message, "give a path relative to the list, without '..'")
    try:
        there = (folder / path).is_file()
    except OSError:  # e.g. a name that is too long
        there = False
    if not there:
        raise SourceError(
            f"{row.place}: {key} names {path}, which is not there", "correct the path or leave it empty"
        )
    return str(path)


def _choice(row: Row, key: str, allowed: Sequence[str]) -> str | None:
    value = row.cells.get(key)
    if value is None:
        return None
    named = {name.lower(): name for name in allowed}
    if value.lower() not in named:
        raise SourceError(f"{row.place}: {key} is {value[:40]!r}", f"write one of {', '.join(allowed)}")
    return named[value.lower()]


def _grade(row: Row) -> Literal["HGG", "LGG"] | None:
    choice = _choice(row, "grade", ("HGG", "LGG"))
    return "HGG" if choice == "HGG" else "LGG" if choice == "LGG" else None


def _tumour(row: Row, labelled: bool) -> bool | None:
    """False holds for every slice of a study; True does not, so only a label can tell where the tumour is."""
    choice = _choice(row, "tumour", tuple(TRUTH))
    if choice is None:
        return None
    if TRUTH[choice] and not labelled:
        logger.warning("%s: tumour is yes without a label: not used, as nothing says in which slices", row.place)
    return None if TRUTH[choice] or labelled else False


def _refuse_doubles(rows: Sequence[Row], records: Sequence[StudyRecord]) -> None:
    """One line per study and one place per file: anything else is a slip of copy and paste."""
    ids: dict[str, str] = {}
    files: dict[str, str] = {}
    for row, record in zip(rows, records, strict=True):
        if first := ids.get(record.study_id.lower()):
            raise SourceError(f"{row.place}: study_id {record.study_id} is also in {first}", "give each its own name")
        ids[record.study_id.lower()] = row.place
        for path in (*(paths[0] for paths in record.images.values()), *record.labels):
            if first := files.get(path):
                raise SourceError(f"{row.place}: {path} is also used in {first}", "name each file once")
            files[path] = row.place
