"""The ``split`` stage: train, validation and test by patient group, stored as a file, and the leakage audit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from slicewise.config import SplitConfig
from slicewise.errors import StoreError
from slicewise.files import write_json
from slicewise.slices.assign import Stratum, deal, draw
from slicewise.slices.audit import Audit, audit_split, write_audit
from slicewise.slices.groups import Link, find_links, label_conflicts, patient_groups, presence
from slicewise.slices.imported import EXCLUDED, read_imported
from slicewise.slices.split_file import FILE, SIDES, Side, Split, load_split
from slicewise.slices.store import SliceStore

__all__ = ["FILE", "SIDES", "Audit", "Side", "Split", "audit_split", "load_split", "make_split", "split_store"]

logger = logging.getLogger(__name__)


def make_split(store: SliceStore, config: SplitConfig, seed: int, links: Sequence[Link] | None = None) -> Split:
    """Split by patient group.

    Args:
        store: The slice store.
        config: The section ``split``.
        seed: Seed of the draw.
        links: What ``find_links`` found in this store, where that is at hand.

    Raises:
        StoreError: Fewer patient groups than sides or folds, or a previous split that no longer fits.
        ConfigError: An imported split that does not fit the store.
    """
    links = find_links(store, config) if links is None else links
    groups = patient_groups(store, links, config.aliases)
    excluded = _conflicting(store, links, config)
    if config.imported:
        listed = read_imported(config.imported, store)
        excluded |= dict.fromkeys(listed[EXCLUDED], "excluded by the imported split")
        sides = {side: listed[side] for side in SIDES}
        return _split(store, groups, sides, excluded, method="imported", seed=seed)
    taken = {name: [key for key in keys if key not in excluded] for name, keys in groups.items()}
    parts = _parts(store, {name: keys for name, keys in taken.items() if keys}, config, seed)
    side_of = _rotated(config)
    sides = {
        side: [key for name, part in parts.items() if side_of[part] == side for key in taken[name]] for side in SIDES
    }
    folds = tuple(tuple(sorted(n for n, part in parts.items() if part == fold)) for fold in range(config.folds or 0))
    fold = config.fold if config.folds else None
    made = _split(store, groups, sides, excluded, method=config.method, seed=seed)
    return made.model_copy(update={"folds": folds, "fold": fold})


def _split(
    store: SliceStore,
    groups: Mapping[str, Sequence[str]],
    sides: Mapping[Side, Iterable[str]],
    excluded: dict[str, str],
    *,
    method: str,
    seed: int,
) -> Split:
    empty = [side for side in SIDES if not set(sides[side]) - set(excluded)]
    if empty:
        raise StoreError(f"no study is left for {' and '.join(empty)}", "give more studies, or split another way")
    return Split.model_validate(
        {
            "method": method,
            "seed": seed,
            "data_digest": store.index.data_digest,
            "groups": {name: tuple(keys) for name, keys in groups.items()},
            "excluded": dict(sorted(excluded.items())),
            **{side: tuple(sorted(set(keys) - set(excluded))) for side, keys in sides.items()},
        }
    )


def _conflicting(store: SliceStore, links: Sequence[Link], config: SplitConfig) -> dict[str, str]:
    """The studies to leave out because their labels disagree; the audit judges them where none are left out."""
    conflicts = label_conflicts(store, links)
    for conflict in conflicts:
        logger.warning("duplicates have labels that disagree: %s", conflict.reason)
    if config.on_label_conflict != "drop":
        return {}
    return {key: f"labels disagree: {conflict.reason}" for conflict in conflicts for key in conflict.studies}


def _parts(store: SliceStore, groups: Mapping[str, Sequence[str]], config: SplitConfig, seed: int) -> dict[str, int]:
    """Group name → side or fold."""
    shares = [1 / config.folds] * config.folds if config.folds else list(config.fractions)
    if len(groups) < len(shares):
        what = f"{config.folds} folds" if config.folds else "train, validation and test"
        raise StoreError(
            f"{len(groups)} patient group(s) cannot make {what}",
            f"give studies of at least {'three' if len(shares) == len(SIDES) else len(shares)} patients",
        )
    kept = _kept(load_split(config.previous), groups, config) if config.previous else {}
    if config.method == "hash":
        return draw(list(groups), shares, seed, kept)
    return deal({name: _stratum(store, keys) for name, keys in groups.items()}, shares, seed, kept)


def _stratum(store: SliceStore, keys: Sequence[str]) -> Stratum:
    found = {presence(store.studies[key]) for key in keys}
    return store.studies[keys[0]].source, next(word for word in ("tumour", "none", "unknown") if word in found)


def _rotated(config: SplitConfig) -> tuple[Side, ...]:
    """The side of each part: of the folds, one is test and the next validation."""
    if not config.folds:
        return SIDES
    sides: list[Side] = ["train"] * config.folds
    sides[config.fold], sides[(config.fold + 1) % config.folds] = "test", "val"
    return tuple(sides)


def _kept(previous: Split, groups: Mapping[str, Sequence[str]], config: SplitConfig) -> dict[str, int]:
    """The parts that groups had in an earlier split.

    Raises:
        StoreError: The earlier split has other folds, or a new study joins groups that were dealt apart.
    """
    if len(previous.folds) != (config.folds or 0):
        raise StoreError(
            f"{config.previous} has {len(previous.folds) or 'no'} folds, the configuration {config.folds or 'none'}",
            "give the same number as split.folds",
        )
    part_of = _previous_parts(previous)
    kept: dict[str, int] = {}
    for name, keys in groups.items():
        found = {part_of[key] for key in keys if key in part_of}
        if len(found) > 1:
            new = [key for key in keys if key not in part_of]
            old = ", ".join(f"{key} ({_place(part_of[key], config)})" for key in keys if key in part_of)
            raise StoreError(
                f"{', '.join(new) or 'a changed alias or threshold'} joins what {config.previous} deals apart: {old}",
                "leave the new study out, or split without split.previous",
            )
        if found:
            kept[name] = found.pop()
    return kept


def _previous_parts(previous: Split) -> dict[str, int]:
    if previous.folds:
        return {key: at for at, names in enumerate(previous.folds) for name in names for key in previous.groups[name]}
    return {key: at for at, side in enumerate(SIDES) for key in previous.side(side)}


def _place(part: int, config: SplitConfig) -> str:
    return f"fold {part}" if config.folds else SIDES[part]


def split_store(store_folder: Path, out: Path, config: SplitConfig, seed: int) -> Split:
    """The stage: split, audit, and store ``split.json`` and ``audit.json`` in the folder ``out``.

    A failed audit leaves ``audit-failed.json`` and whatever split was there before.

    Raises:
        StoreError: The store cannot be read or has too few patients.
        ConfigError: The imported split does not fit the store.
        LeakageError: The audit failed.
    """
    store = SliceStore(store_folder)
    links = find_links(store, config)
    split = make_split(store, config, seed, links)
    audit = audit_split(store, split, config, links)
    write_audit(audit, out)
    audit.require_passed()
    audited = split.model_copy(update={"audit": audit.counts})
    write_json(out / FILE, audited.model_dump(mode="json"))
    counts = ", ".join(f"{side} {len(audited.side(side))}" for side in SIDES)
    logger.info("split %d patient groups: %s; audit passed", len(split.groups), counts)
    return audited
