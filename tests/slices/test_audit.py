"""The audit finds each kind of leak by itself, and trusts nothing that the split says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_store import Made, picture, write_store

from slicewise.config import SplitConfig
from slicewise.errors import LeakageError, StoreError
from slicewise.slices.audit import audit_split, load_audit
from slicewise.slices.split import SIDES, Split, make_split, split_store
from slicewise.slices.store import SliceStore

ALIASES = {"p1": ("p1_elsewhere",)}
CONFIG = SplitConfig(aliases=ALIASES)
BIG = 96


def retouched(image: np.ndarray) -> np.ndarray:
    """The same picture, brighter and noisy."""
    return image * 1.3 + np.random.default_rng(5).normal(0, 0.05, image.shape) * (image != 0)


def studies() -> list[Made]:
    """Pairs that belong together, of each kind, and others."""
    unrelated = [Made(f"z{at}", f"q{at}", at % 2 > 0, picture(50 + at, BIG)) for at in range(8)]
    return [
        Made("visit_1", "p0", image=picture(1, BIG)),
        Made("visit_2", "p0", image=picture(2, BIG)),
        Made("here", "p1", image=picture(3, BIG)),
        Made("there", "p1_elsewhere", image=picture(4, BIG)),
        Made("listed", "p2", image=picture(5, BIG)),
        Made("again", "p3", image=picture(5, BIG)),
        Made("photo", None, True, picture(6, BIG)),
        Made("retouched", None, True, retouched(picture(6, BIG))),
        *unrelated,
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    return write_store(tmp_path_factory.mktemp("audit"), studies())


def moved(split: Split, key: str, to: str | None) -> Split:
    """The split with one study on another side, or on none."""
    sides = {side: tuple(k for k in split.side(side) if k != key) for side in SIDES}
    if to:
        sides[to] += (key,)  # type: ignore[index]
    return split.model_copy(update=dict(sides))


def elsewhere(split: Split, key: str) -> str:
    return next(side for side in SIDES if key not in split.side(side))


def lone(split: Split) -> str:
    """A study to learn from that belongs to no other."""
    return next(key for key in split.train if key.startswith("z"))


SABOTAGE: list[tuple[str, Callable[[Split], Split], str]] = [
    (
        "patient",
        lambda s: moved(s, "visit_2", elsewhere(s, "visit_2")),
        "visit_1 in .* and visit_2 in .* one patient",
    ),
    ("alias", lambda s: moved(s, "there", elsewhere(s, "there")), "here in .* and there in .* under two names"),
    ("content", lambda s: moved(s, "again", elsewhere(s, "again")), "again in .* the same pixels listed twice"),
    ("near", lambda s: moved(s, "retouched", elsewhere(s, "retouched")), r"retouched in .* near-duplicates \(corr"),
    ("none", lambda s: moved(s, "z1", None), "z1 is on no side"),
    ("two", lambda s: s.model_copy(update={"test": (*s.test, lone(s))}), "z. is on 2 sides"),
    ("unknown", lambda s: s.model_copy(update={"test": (*s.test, "ghost")}), "ghost is in the split but not in"),
    ("digest", lambda s: s.model_copy(update={"data_digest": "f" * 64}), "made for other data"),
    ("excluded", lambda s: s.model_copy(update={"excluded": {s.test[0]: "why"}}), "excluded but on a side"),
]


@pytest.mark.parametrize(("sabotage", "said"), [row[1:] for row in SABOTAGE], ids=[row[0] for row in SABOTAGE])
def test_each_sabotage_is_found_alone(store: SliceStore, sabotage: Callable[[Split], Split], said: str) -> None:
    split = make_split(store, CONFIG, 0)
    assert audit_split(store, split, CONFIG).passed
    # The split's own list of groups says that all is well; the audit must not believe it.
    broken = sabotage(split).model_copy(update={"groups": {key: (key,) for key in store.studies}})
    audit = audit_split(store, broken, CONFIG)
    assert len(audit.problems) == 1
    with pytest.raises(LeakageError, match=said):
        audit.require_passed()


def test_report_lists_what_belongs_together(store: SliceStore, tmp_path: Path) -> None:
    split = split_store(store.folder, tmp_path, CONFIG, 0)
    audit = load_audit(tmp_path)
    found = {tuple(sorted(member.study for member in group.members)): group for group in audit.groups}
    assert {keys: group.kinds for keys, group in found.items()} == {
        ("here", "there"): ("alias",),
        ("again", "listed"): ("content",),
        ("photo", "retouched"): ("near",),
    }
    assert CONFIG.near_duplicate_correlation <= found["photo", "retouched"].similarity < 1
    assert all(len({member.side for member in group.members}) == 1 for group in audit.groups)
    assert audit.counts == split.audit
    assert audit.counts | {} == {
        "studies": 16,
        "patient_groups": 12,
        "groups_of_several_studies": 4,
        "duplicate_groups": 2,
        "studies_in_duplicate_groups": 4,
        "identical_groups": 1,
        "studies_in_identical_groups": 2,
        "near_duplicate_pairs": 1,
        "patients_under_two_names": 2,
        "duplicates_that_disagree": 0,
        "duplicate_groups_across_sides": 0,
        "excluded": 0,
    }


def conflicting(folder: Path, kind: str) -> SliceStore:
    others = [Made(f"z{at}", f"q{at}", at % 2 > 0, picture(50 + at, BIG)) for at in range(8)]
    image, mask = picture(7, BIG), np.zeros((BIG, BIG), dtype=np.uint8)
    if kind == "near":
        pair = [Made("yes", None, True, image), Made("no", None, False, retouched(image))]
    elif kind == "content":
        pair = [Made("yes", None, True, image), Made("no", None, False, image)]
    else:
        pair = [Made("yes", "p1", True, image, mask + 1), Made("no", "p2", True, image, mask + 2)]
    return write_store(folder, [*pair, *others])


@pytest.mark.parametrize("kind", ["near", "content", "masks"])
def test_labels_that_disagree(tmp_path: Path, kind: str) -> None:
    store = conflicting(tmp_path / "store", kind)
    dropped = split_store(store.folder, tmp_path / "drop", SplitConfig(), 0)
    assert sorted(dropped.excluded) == ["no", "yes"]
    assert not {"no", "yes"} & {key for side in SIDES for key in dropped.side(side)}
    assert dropped.audit["duplicates_that_disagree"] == 1
    assert load_audit(tmp_path / "drop").disagreements[0].studies == ("no", "yes")
    with pytest.raises(LeakageError, match="labels that disagree"):
        split_store(store.folder, tmp_path / "fail", SplitConfig(on_label_conflict="fail"), 0)
    warned = split_store(store.folder, tmp_path / "warn", SplitConfig(on_label_conflict="warn"), 0)
    assert not warned.excluded
    assert warned.audit["duplicates_that_disagree"] == 1


def test_one_labelled_and_one_unlabelled_copy_do_not_disagree(tmp_path: Path) -> None:
    image = picture(7, BIG)
    others = [Made(f"z{at}", f"q{at}", at % 2 > 0, picture(50 + at, BIG)) for at in range(4)]
    mask = np.ones((BIG, BIG), dtype=np.uint8)
    pair = [Made("known", "p1", True, image, mask), Made("unknown", "p1", None, image)]
    store = write_store(tmp_path / "store", [*pair, *others])
    split = make_split(store, SplitConfig(), 0)
    assert not split.excluded
    assert audit_split(store, split, SplitConfig()).counts["duplicates_that_disagree"] == 0


@pytest.mark.parametrize("text", ["{", "{}", json.dumps({"format": "slicewise-audit", "version": 9})])
def test_a_damaged_audit_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "audit.json").write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match=r"audit\.json is missing or damaged"):
        load_audit(tmp_path)
