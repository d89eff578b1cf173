"""Patient-level folds whose test sides cover every patient once, with a validation side of their own."""

from __future__ import annotations

from pathlib import Path

from slicewise.config import SplitConfig
from slicewise.files import write_json
from slicewise.slices.audit import audit_split
from slicewise.slices.groups import find_links
from slicewise.slices.split import FILE, Split, make_split
from slicewise.slices.store import SliceStore

# The two names of one person in the public sets.
ALIASES = {"TCGA_HT_7473": ("Brats18_TCIA13_623_1",)}


def fold_split(store: SliceStore, fold: int, folds: int, seed: int, out: Path) -> Split:
    """Deal the groups into ``2 × folds`` parts: two are test, the next is validation, the others train.

    The split is audited and written to ``out``.
    """
    parts = 2 * folds
    config = SplitConfig(folds=parts, fold=2 * fold, aliases=ALIASES)
    links = find_links(store, config)
    dealt = make_split(store, config, seed, links)
    sides = dict.fromkeys(range(parts), "train")
    sides |= {2 * fold: "test", 2 * fold + 1: "test", (2 * fold + 2) % parts: "val"}
    keys: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for at, names in enumerate(dealt.folds):
        for name in names:
            keys[sides[at]] += [key for key in dealt.groups[name] if key not in dealt.excluded]
    update = {side: tuple(sorted(found)) for side, found in keys.items()}
    split = Split.model_validate(dealt.model_copy(update={**update, "folds": (), "fold": None}).model_dump())
    audit_split(store, split, config, links).require_passed()
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / FILE, split.model_dump(mode="json"))
    return split


def only_sources(split: Split, store: SliceStore, sources: tuple[str, ...], out: Path) -> Path:
    """The same split with the training and validation patients of some sources; the test side stays."""
    kept = {
        side: tuple(key for key in split.side(side) if store.studies[key].source in sources)
        for side in ("train", "val")
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / FILE, split.model_copy(update=kept).model_dump(mode="json"))
    return out
