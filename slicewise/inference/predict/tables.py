"""The results of a run as ``predictions.json`` and ``predictions.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slicewise import RESEARCH_USE
from slicewise.files import write_json, write_text
from slicewise.inference.predict.item_records import ItemRecord, flat_row

JSON_NAME, CSV_NAME = "predictions.json", "predictions.csv"
# A spreadsheet would take such a cell for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_tables(records: Sequence[ItemRecord], options: Mapping[str, Any], out: Path) -> None:
    """Write both files, each in one step.

    Args:
        records: One for each item, in order; at least one.
        options: What was asked for.
        out: The output folder.
    """
    content = {
        "research_use": RESEARCH_USE,
        "model": records[0].model.model_dump(),
        "options": dict(options),
        "items": [record.model_dump(mode="json") for record in records],
    }
    write_json(out / JSON_NAME, content)
    rows = [flat_row(record) for record in records]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    write_text(out / CSV_NAME, buffer.getvalue())


def _cell(value: Any) -> Any:
    """Truth as ``true`` and ``false``; a file's name that looks like a formula gets an apostrophe before it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value
