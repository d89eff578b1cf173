"""BraTS's ``name_mapping*.csv``: what one patient is called in each year's set, and the tumour's grade."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from slicewise.errors import SourceError
from slicewise.studies.brats_layout import TCGA, patient_of
from slicewise.studies.study import StudyRecord

logger = logging.getLogger(__name__)

MAPPING_NAME = re.compile(r"^name_mapping.*\.csv$", re.I)
ID_COLUMN = re.compile(r"^(BraTS_?\d{4}_subject_?ID|TCGA_TCIA_subject_?ID|BraTS\d{4})$", re.I)
NO_NAME = frozenset({"", "na", "n/a", "nan", "none", "-"})
MAX_BYTES = 16 << 20
# The set by whose names a patient goes if the mapping gives no TCGA barcode: the others' names mostly follow it.
PREFERRED = re.compile(r"^Brats18_", re.I)


@dataclass(frozen=True)
class Person:
    """One row of the mapping: all names of one person, and the grade where it is told."""

    patient_id: str
    grade: Literal["HGG", "LGG"] | None


def is_mapping(path: PurePosixPath) -> bool:
    """Whether a file is a name mapping, by its name."""
    return bool(MAPPING_NAME.match(path.name))


def apply_mappings(records: Sequence[StudyRecord], folder: Path, paths: Iterable[PurePosixPath]) -> list[StudyRecord]:
    """Give studies of one person one patient id, and their grade, by the mappings that lie with the set.

    A patient id comes from the row's TCGA barcode (``TCGA_HT_7473``, as in the LGG set), else from the name
    in the 2018 set, else from the first name given. A folder's grade (HGG, LGG) stands over the mapping's.

    Args:
        records: As found by file names.
        folder: The source.
        paths: All its files, relative to it.

    Raises:
        SourceError: A mapping cannot be read; names it.
    """
    people: dict[str, Person] = {}
    for path in paths:
        if is_mapping(path):
            people |= read_mapping(folder / path)
    return [_with_person(record, people) for record in records] if people else list(records)


def read_mapping(path: Path) -> dict[str, Person]:
    """Study name in lower case → person, for every name in the file.

    A file without a column of names is passed over with a log line: it is some other table.

    Raises:
        SourceError: The file is unreadable, not UTF-8 or too large.
    """
    cure = "copy the file as it came with the set, or remove it"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{path} is larger than {MAX_BYTES >> 20} MB", cure)
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.reader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as CSV ({error})", cure) from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    columns = [index for index, cell in enumerate(header) if ID_COLUMN.match(cell)]
    if not columns:
        logger.warning("%s has no column of names such as BraTS_2020_subject_ID and is not used", path)
        return {}
    grade = next((index for index, cell in enumerate(header) if cell.lower() == "grade"), None)
    return _people(rows[1:], columns, grade)


def _people(rows: Iterable[Sequence[str]], columns: Sequence[int], grade: int | None) -> dict[str, Person]:
    people: dict[str, Person] = {}
    for row in rows:
        cells = [row[index].strip() for index in columns if index < len(row)]
        names = [cell for cell in cells if cell.lower() not in NO_NAME]
        if names:
            person = Person(_patient_id(names), _grade(row, grade))
            people |= {name.lower(): person for name in names}
    return people


def _patient_id(names: Sequence[str]) -> str:
    first = next((name for name in names if TCGA.match(name)), None)
    first = first or next((name for name in names if PREFERRED.match(name)), names[0])
    return patient_of(first)


def _grade(row: Sequence[str], column: int | None) -> Literal["HGG", "LGG"] | None:
    cell = row[column].strip().upper() if column is not None and column < len(row) else ""
    return "HGG" if cell == "HGG" else "LGG" if cell == "LGG" else None


def _with_person(record: StudyRecord, people: dict[str, Person]) -> StudyRecord:
    person = people.get(record.study_id.lower())
    if person is None or record.layout != "brats":
        return record
    return record.model_copy(update={"patient_id": person.patient_id, "grade": record.grade or person.grade})
