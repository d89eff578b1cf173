"""Splits made elsewhere: a JSON file of three lists, or a CSV file with a study and a side per line."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slicewise.errors import ConfigError
from slicewise.files import read_json
from slicewise.slices.split_file import SIDES
from slicewise.slices.store import SliceStore

EXCLUDED = "excluded"
WORDS = {side: side for side in (*SIDES, EXCLUDED)} | {"training": "train", "validation": "val", "valid": "val"}
KEY = "split.imported"
SHOWN = 5


def read_imported(path: Path, store: SliceStore) -> dict[str, list[str]]:
    """The studies on each side of an imported split.

    Args:
        path: ``.csv`` with the columns ``study_id`` and ``side``, anything else is read as JSON
            ``{"train": [ids], "val": [ids], "test": [ids]}``; both may name a side ``excluded``.
        store: The store whose studies or patients the ids name.

    Returns:
        Side, or ``excluded`` → study keys, sorted.

    Raises:
        ConfigError: The file cannot be read, names a side, study or patient that is not known, or does not say
            of every study of the store on which one side it is; names the ids.
    """
    listed = _read_csv(path) if path.suffix.lower() == ".csv" else _read_json(path)
    known = _names(store)
    failed = {failure.study_id for failure in store.index.failures}
    unknown = [name for names in listed.values() for name in names if name not in known and name not in failed]
    if unknown:
        raise ConfigError(
            f"{KEY}: {path} names {_some(unknown)}, not in the store", "give study or patient ids of the store"
        )
    sides = {
        side: {key for name in listed.get(side, ()) for key in known.get(name, ())} for side in (*SIDES, EXCLUDED)
    }
    where = defaultdict(list)
    for side, keys in sides.items():
        for key in keys:
            where[key].append(side)
    twice = [f"{key} ({', '.join(found)})" for key, found in sorted(where.items()) if len(found) > 1]
    if twice:
        raise ConfigError(f"{KEY}: {path} puts on several sides {_some(twice)}", "list each study once")
    missing = sorted(set(store.studies) - set(where))
    if missing:
        raise ConfigError(f"{KEY}: {path} does not list {_some(missing)}", f"add them to a side, or to {EXCLUDED!r}")
    return {side: sorted(keys) for side, keys in sides.items()}


def _names(store: SliceStore) -> Mapping[str, Sequence[str]]:
    """What a line may call a study: its key, its id or its patient."""
    patients: dict[str, list[str]] = defaultdict(list)
    for study in store.studies.values():
        if study.patient_id:
            patients[study.patient_id].append(study.key)
    own = {name: [study.key] for study in store.studies.values() for name in (study.key, study.study_id)}
    return patients | own


def _read_json(path: Path) -> dict[str, list[str]]:
    try:
        value = read_json(path)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{KEY}: cannot read {path} as JSON: {error}", "check the file") from error
    if isinstance(value, dict) and value.get("format") == "slicewise-split":
        value = {side: list(value.get(side, ())) for side in (*SIDES, EXCLUDED)}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{KEY}: {path} holds a {type(value).__name__}", 'write {"train": [ids], "val": [], "test": []}'
        )
    sides: dict[str, list[str]] = defaultdict(list)
    for word, names in value.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{KEY}: {path}: {word!r} is not a list of ids", "write the ids as strings in a list")
        sides[_side(word, path)] += names
    return sides


def _read_csv(path: Path) -> dict[str, list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows: list[dict[str, Any]] = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{KEY}: cannot read {path} as CSV: {error}", "check the file") from error
    sides: dict[str, list[str]] = defaultdict(list)
    for number, row in enumerate(rows, start=2):
        if not row.get("study_id") or not row.get("side"):
            raise ConfigError(f"{KEY}: {path}, line {number}: no study_id or no side", "write 'study_id,side' lines")
        sides[_side(row["side"], path)].append(row["study_id"].strip())
    return sides


def _side(word: str, path: Path) -> str:
    try:
        return WORDS[word.strip().lower()]
    except KeyError:
        raise ConfigError(f"{KEY}: {path} names a side {word!r}", f"use {', '.join((*SIDES, EXCLUDED))}") from None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
