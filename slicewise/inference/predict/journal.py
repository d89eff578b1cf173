"""What is done so far, one JSON line an item, so that a run that was killed goes on where it was."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from slicewise.errors import StoreError
from slicewise.inference.predict.item_records import ItemRecord
from slicewise.locks import hold_alone

logger = logging.getLogger(__name__)

NAME = "predictions.jsonl"


class Journal:
    """The journal of an output folder; ``open_journal`` makes it.

    Args:
        handle: The file, locked and at its end.
        done: Finished items by key.
    """

    def __init__(self, handle: BinaryIO, done: dict[str, ItemRecord]) -> None:
        self._handle = handle
        self._done = done

    def find(self, key: str) -> ItemRecord | None:
        """The finished item of this key; None where there is none, or it failed."""
        return self._done.get(key)

    def add(self, record: ItemRecord) -> None:
        """Write one line, down to the disk."""
        self._handle.write(record.model_dump_json().encode() + b"\n")
        self._handle.flush()
        os.fsync(self._handle.fileno())


@contextmanager
def open_journal(out: Path, *, resume: bool) -> Iterator[Journal]:
    """Open the journal in a folder, or begin it; held until the context ends, or the process.

    Args:
        out: The output folder.
        resume: Take over what is finished there; else begin anew.

    Raises:
        RunLockedError: Another process writes there.
        StoreError: The folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = (out / NAME).open("a+b")
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error.strerror}", "choose another --out") from error
    with handle:
        hold_alone(handle, f"another process writes to {out}")
        yield Journal(handle, _take_over(handle) if resume else _begin_anew(handle))


def _begin_anew(handle: BinaryIO) -> dict[str, ItemRecord]:
    handle.truncate(0)
    return {}


def _take_over(handle: BinaryIO) -> dict[str, ItemRecord]:
    """The finished items; the half line that a kill leaves is cut off."""
    handle.seek(0)
    content = handle.read()
    whole = content.rfind(b"\n") + 1
    handle.truncate(whole)
    done = {}
    for line in content[:whole].splitlines():
        try:
            record = ItemRecord.model_validate_json(line)
        except ValidationError:
            logger.warning("a line of %s cannot be read: its item is done again", NAME)
            continue
        if record.status == "done":
            done[record.key] = record
    return done
