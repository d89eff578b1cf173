"""How groups are dealt: by share, by hash, into folds, after an earlier split, or as an imported file says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_store import Made, picture, write_store
from pydantic import ValidationError
from typer.testing import CliRunner

from slicewise.cli import build_app
from slicewise.config import SplitConfig
from slicewise.errors import ConfigError, LeakageError, StoreError
from slicewise.slices.assign import Stratum, deal, draw, quotas
from slicewise.slices.split import SIDES, load_split, make_split, split_store

SHARES = (0.70, 0.15, 0.15)
strata = st.dictionaries(
    st.text("abcdefgh0123456789", min_size=1, max_size=6),
    st.tuples(st.sampled_from(["brats", "lgg", "kaggle"]), st.sampled_from(["tumour", "none", "unknown"])),
    min_size=3,
    max_size=60,
)
shares = st.sampled_from([SHARES, (0.34, 0.33, 0.33), (0.2, 0.4, 0.4), (0.9, 0.05, 0.05), (0.25,) * 4, (0.1,) * 10])


@settings(deadline=None)
@given(strata, shares, st.integers(0, 5))
def test_every_group_gets_one_part_and_every_part_its_share(
    groups: dict[str, Stratum], share: tuple[float, ...], seed: int
) -> None:
    parts = deal(groups, share, seed)
    assert set(parts) == set(groups)
    sizes = np.bincount(list(parts.values()), minlength=len(share))
    assert sizes.tolist() == quotas(len(groups), share).tolist()
    if len(groups) >= len(share):
        assert sizes.min() >= 1
        if min(share) * len(groups) >= 1:
            assert abs(sizes - np.array(share) * len(groups)).max() <= 1 + 1e-9


@settings(deadline=None)
@given(strata, shares, st.integers(0, 5), st.randoms())
def test_the_order_of_the_groups_does_not_matter(
    groups: dict[str, Stratum], share: tuple[float, ...], seed: int, random: object
) -> None:
    names = list(groups)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert deal({name: groups[name] for name in names}, share, seed) == deal(groups, share, seed)


@settings(deadline=None)
@given(strata, shares, st.integers(0, 5))
def test_every_part_sees_tumour_and_its_absence_where_there_is_enough(
    groups: dict[str, Stratum], share: tuple[float, ...], seed: int
) -> None:
    parts = deal(groups, share, seed)
    sizes = Counter(parts.values())
    of_kind = {kind: Counter(parts[n] for n in groups if groups[n][1] == kind) for kind in ("tumour", "none")}
    if of_kind["tumour"].total() >= len(share):
        without = [part for part in sizes if not of_kind["tumour"][part]]
        # A part may go without only where its one group of the other kind is needed there.
        assert all(sizes[part] == of_kind["none"][part] == 1 for part in without)
    if min(of_kind["tumour"].total(), of_kind["none"].total()) >= len(share) and min(sizes.values()) >= 2:
        assert set(of_kind["tumour"]) == set(of_kind["none"]) == set(sizes)


@settings(deadline=None)
@given(strata, strata, shares, st.integers(0, 5))
def test_earlier_parts_stay_when_groups_are_added(
    old: dict[str, Stratum], new: dict[str, Stratum], share: tuple[float, ...], seed: int
) -> None:
    before = deal(old, share, seed)
    after = deal(new | old, share, seed + 1, before)
    assert {name: after[name] for name in old} == before
    assert set(after) == set(new) | set(old)


@given(st.sets(st.text(max_size=8), min_size=1), st.sets(st.text(max_size=8)), st.integers(0, 9))
def test_a_hashed_part_depends_on_the_name_alone(old: set[str], new: set[str], seed: int) -> None:
    before = draw(sorted(old), SHARES, seed)
    after = draw(sorted(old | new), SHARES, seed)
    assert {name: after[name] for name in old} == before
    assert set(after.values()) <= {0, 1, 2}


def test_hashed_parts_get_their_shares_on_average() -> None:
    sizes = np.bincount(list(draw([f"p{at}" for at in range(4000)], SHARES, 0).values())) / 4000
    np.testing.assert_allclose(sizes, SHARES, atol=0.02)


def patients(n: int, first: int = 0) -> list[Made]:
    """Two studies of each patient; every second patient has tumour."""
    return [
        Made(f"s{at:03d}{part}", f"p{at:03d}", at % 2 > 0, picture(2 * at + (part == "b")))
        for at in range(first, first + n)
        for part in "ab"
    ]


def test_sides_hold_whole_patients_in_exact_shares(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", patients(20))
    split = split_store(store.folder, tmp_path / "out", SplitConfig(), 0)
    assert [len(split.side(side)) for side in SIDES] == [28, 6, 6]
    for side in SIDES:
        keys = split.side(side)
        assert all(f"{key[:4]}{'b' if key.endswith('a') else 'a'}" in keys for key in keys)
        assert {store.studies[key].has_tumour for key in keys} == {True, False}
    assert split.version == 2
    assert load_split(tmp_path / "out") == split == load_split(tmp_path / "out" / "split.json")
    assert split.audit["studies"] == 40
    assert split == split_store(store.folder, tmp_path / "again", SplitConfig(), 0)


@settings(max_examples=15, deadline=None)
@given(owners=st.lists(st.integers(0, 9), min_size=3, max_size=25), seed=st.integers(0, 3))
def test_any_studies_of_any_patients_never_cross(
    tmp_path_factory: pytest.TempPathFactory, owners: list[int], seed: int
) -> None:
    made = [Made(f"s{at}", f"p{owner}", owner % 3 > 0, picture(at)) for at, owner in enumerate(owners)]
    store = write_store(tmp_path_factory.mktemp("store"), made)
    if len(set(owners)) < 3:
        with pytest.raises(StoreError, match="at least three"):
            make_split(store, SplitConfig(), seed)
        return
    split = make_split(store, SplitConfig(), seed)
    listed = [key for side in SIDES for key in split.side(side)]
    assert sorted(listed) == sorted(store.studies)
    side_of = {key: side for side in SIDES for key in split.side(side)}
    for owner in set(owners):
        assert len({side_of[f"s{at}"] for at, one in enumerate(owners) if one == owner}) == 1


@pytest.mark.parametrize("method", ["stratified", "hash"])
def test_folds_test_every_group_once_and_agree(tmp_path: Path, method: str) -> None:
    store = write_store(tmp_path / "store", patients(23))
    made = [make_split(store, SplitConfig(folds=5, fold=fold, method=method), 3) for fold in range(5)]
    assert len({split.folds for split in made}) == 1
    assert sorted(name for fold in made[0].folds for name in fold) == sorted(made[0].groups)
    assert Counter(key for split in made for key in split.test) == Counter(dict.fromkeys(store.studies, 1))
    assert Counter(key for split in made for key in split.val) == Counter(dict.fromkeys(store.studies, 1))
    for split, following in zip(made, [*made[1:], made[0]], strict=True):
        assert split.val == following.test
        assert not set(split.test) & set(split.train)
    if method == "stratified":
        assert {len(fold) for fold in made[0].folds} == {4, 5}


def test_an_earlier_split_is_kept_and_only_new_patients_are_dealt(tmp_path: Path) -> None:
    old = write_store(tmp_path / "old", patients(20))
    split_store(old.folder, tmp_path / "split", SplitConfig(), 0)
    more = patients(30)
    late = Made("s003c", "p003", True, picture(999))
    new = write_store(tmp_path / "new", [*more, late])
    config = SplitConfig(previous=tmp_path / "split")
    before, after = load_split(tmp_path / "split"), split_store(new.folder, tmp_path / "split", config, 77)
    for side in SIDES:
        assert set(before.side(side)) <= set(after.side(side))
    assert [len({key[:4] for key in after.side(side)}) for side in SIDES] == [20, 5, 5]
    where = {key: side for side in SIDES for key in after.side(side)}
    assert where["s003c"] == where["s003a"]


def test_earlier_folds_are_kept(tmp_path: Path) -> None:
    old = write_store(tmp_path / "old", patients(9))
    first = split_store(old.folder, tmp_path / "split", SplitConfig(folds=3), 0)
    new = write_store(tmp_path / "new", patients(12))
    config = SplitConfig(folds=3, fold=2, previous=tmp_path / "split" / "split.json")
    after = make_split(new, config, 5)
    for fold, names in enumerate(first.folds):
        assert set(names) <= set(after.folds[fold])
    with pytest.raises(StoreError, match="has 3 folds"):
        make_split(new, SplitConfig(previous=tmp_path / "split"), 0)


def test_a_new_study_that_joins_two_sides_is_named(tmp_path: Path) -> None:
    old = write_store(tmp_path / "old", [Made(f"s{at}", f"p{at}", image=picture(at)) for at in range(6)])
    split = split_store(old.folder, tmp_path / "split", SplitConfig(), 0)
    bridge = Made("bridge", "p_new", image=picture(int(split.train[0][1:])))
    studies = [Made(f"s{at}", f"p{at}", image=picture(at)) for at in range(6)]
    new = write_store(tmp_path / "new", [*studies, bridge])
    aliases = {"p_new": (f"p{split.test[0][1:]}",)}
    config = SplitConfig(previous=tmp_path / "split", aliases=aliases)
    with pytest.raises(StoreError, match=rf"bridge joins what .*{split.test[0]} \(test\)|bridge joins .*\(train\)"):
        make_split(new, config, 0)


def test_a_hash_split_does_not_move_anybody_when_studies_are_added(tmp_path: Path) -> None:
    config = SplitConfig(method="hash")
    few = make_split(write_store(tmp_path / "few", patients(30)), config, 0)
    many = make_split(write_store(tmp_path / "many", patients(60)), config, 0)
    for side in SIDES:
        assert set(few.side(side)) <= set(many.side(side))


def test_a_hash_split_with_an_empty_side_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", patients(3))
    sizes = [draw(["p000", "p001", "p002"], SHARES, seed) for seed in range(20)]
    seed = next(at for at, parts in enumerate(sizes) if len(set(parts.values())) < 3)
    with pytest.raises(StoreError, match="no study is left for"):
        make_split(store, SplitConfig(method="hash"), seed)


LISTS = {"train": ["p000", "p001"], "val": ["s002a", "s002b/id"], "test": ["p003"]}


@pytest.mark.parametrize("form", ["json", "csv", "split"])
def test_imported_splits_by_study_or_patient(tmp_path: Path, form: str) -> None:
    store = write_store(tmp_path / "store", patients(4), failures=["broken"])
    path = tmp_path / f"given.{'csv' if form == 'csv' else 'json'}"
    if form == "csv":
        rows = [
            f"{name},{side}" for side, names in LISTS.items() for name in [*names, *["broken"] * (side == "test")]
        ]
        path.write_text("\n".join(["study_id,side", *rows]), encoding="utf-8")
    else:
        path.write_text(json.dumps(LISTS), encoding="utf-8")
    if form == "split":
        split_store(store.folder, tmp_path / "first", SplitConfig(imported=path), 0)
        path = tmp_path / "first" / "split.json"
    split = split_store(store.folder, tmp_path / "out", SplitConfig(imported=path), 0)
    assert split.train == ("s000a", "s000b", "s001a", "s001b")
    assert split.val == ("s002a", "s002b")
    assert split.test == ("s003a", "s003b")
    assert split.method == "imported"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(LISTS | {"test": ["p003", "nobody", "p9"]}), "nobody, p9"),
        (json.dumps(LISTS | {"test": ["p003", "s000a"]}), r"s000a \(train, test\)"),
        (json.dumps(LISTS | {"test": []}), "s003a, s003b"),
        (json.dumps({"learn": ["p000"]}), "learn"),
        (json.dumps({"train": "p000"}), "'train' is not a list"),
        ("[1]", "holds a list"),
        ("{", "as JSON"),
    ],
)
def test_imported_splits_that_do_not_fit_name_the_ids(tmp_path: Path, text: str, said: str) -> None:
    store = write_store(tmp_path / "store", patients(4))
    (tmp_path / "given.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        make_split(store, SplitConfig(imported=tmp_path / "given.json"), 0)


def test_an_imported_split_may_leave_studies_out(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", patients(5))
    (tmp_path / "given.json").write_text(json.dumps(LISTS | {"excluded": ["p004"]}), encoding="utf-8")
    split = split_store(store.folder, tmp_path / "out", SplitConfig(imported=tmp_path / "given.json"), 0)
    assert sorted(split.excluded) == ["s004a", "s004b"]


def test_an_imported_split_that_leaks_fails_and_keeps_what_was_there(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", patients(4))
    (tmp_path / "good.json").write_text(json.dumps(LISTS), encoding="utf-8")
    kept = split_store(store.folder, tmp_path / "out", SplitConfig(imported=tmp_path / "good.json"), 0)
    leaky = {"train": ["p000", "s001a"], "val": ["s001b", "p002"], "test": ["p003"]}
    (tmp_path / "leaky.json").write_text(json.dumps(leaky), encoding="utf-8")
    with pytest.raises(LeakageError, match="s001a in train and s001b in val are one patient"):
        split_store(store.folder, tmp_path / "out", SplitConfig(imported=tmp_path / "leaky.json"), 0)
    assert load_split(tmp_path / "out") == kept
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["passed"] is True
    assert json.loads((tmp_path / "out" / "audit-failed.json").read_text())["passed"] is False


@pytest.mark.parametrize(
    "section",
    [
        {"fold": 1},
        {"folds": 3, "fold": 3},
        {"folds": 2},
        {"imported": "a.json", "previous": "b"},
        {"imported": "a.json", "folds": 3},
        {"method": "random"},
        {"fractions": (0.7, 0.2, 0.2)},
    ],
)
def test_settings_that_contradict_each_other_are_refused(section: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SplitConfig.model_validate(section)


def test_the_verb_takes_an_earlier_and_an_imported_split(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", patients(4))
    given = tmp_path / "a split: #1.json"
    given.write_text(json.dumps(LISTS), encoding="utf-8")
    words = ["split", "--store", str(store.folder), "--json", "--out"]
    first = CliRunner().invoke(build_app(), [*words, str(tmp_path / "first"), "--import", str(given)])
    assert first.exit_code == 0, first.output
    assert load_split(tmp_path / "first").method == "imported"
    second = CliRunner().invoke(
        build_app(), [*words, str(tmp_path / "second"), "--previous", str(tmp_path / "first")]
    )
    assert second.exit_code == 0, second.output
    for side in SIDES:
        assert load_split(tmp_path / "second").side(side) == load_split(tmp_path / "first").side(side)
