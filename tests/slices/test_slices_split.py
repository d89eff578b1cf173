"""Patient groups, splits and the leakage audit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicewise.config import SliceConfig, SplitConfig
from slicewise.errors import LeakageError, StoreError
from slicewise.files import sha256_file, write_json
from slicewise.slices.groups import patient_groups
from slicewise.slices.split import SIDES, audit_split, make_split, split_store
from slicewise.slices.store import INDEX, SliceEntry, SliceStore, StoreIndex, StudyEntry

ALIASES = SplitConfig(aliases={"TCGA_HT_7473": ("Brats18_TCIA13_623_1",)})


def write_store(folder: Path, studies: list[tuple[str, str | None, bool, np.ndarray]]) -> SliceStore:
    """A store of one-slice studies: key, patient, tumour, image."""
    entries = []
    for key, patient, tumour, image in studies:
        target = folder / "studies" / key
        target.mkdir(parents=True)
        np.save(target / "image.npy", image[None].astype(np.float16))
        entry = SliceEntry(z=0, tumour=tumour, selected=True, foreground=0.5, pixel_mm2=1.0)
        entries.append(
            StudyEntry(
                key=key,
                study_id=key,
                patient_id=patient,
                source="test",
                layout="images",
                synthetic=True,
                modalities=("flair",),
                known_regions=(),
                spacing_mm=(1, 1, 1),
                spacing_known=False,
                content_sha256=sha256_file(target / "image.npy"),
                label_sha256=None,
                warnings=(),
                slices=(entry,),
            )
        )
    index = StoreIndex(preprocessing=SliceConfig(size=32), data_digest="0", sources=("test",), studies=tuple(entries))
    write_json(folder / INDEX, index.model_dump(mode="json"))
    return SliceStore(folder)


def picture(seed: int) -> np.ndarray:
    """A smooth random image [4, 32, 32] in one channel."""
    rng = np.random.default_rng(seed)
    image = np.zeros((4, 32, 32))
    image[0] = np.kron(rng.normal(size=(8, 8)), np.ones((4, 4)))
    return image


@settings(max_examples=25, deadline=None)
@given(patients=st.lists(st.integers(0, 12), min_size=3, max_size=40), seed=st.integers(0, 5))
def test_every_study_is_on_one_side_and_patients_never_cross(
    tmp_path_factory: pytest.TempPathFactory, patients: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("store")
    studies = [(f"s{at}", f"p{patient}", patient % 3 > 0, picture(at)) for at, patient in enumerate(patients)]
    store = write_store(folder, studies)
    if len(set(patients)) < 3:
        with pytest.raises(StoreError, match="at least three"):
            make_split(store, SplitConfig(), seed)
        return
    split = make_split(store, SplitConfig(), seed)
    assert split == make_split(store, SplitConfig(), seed)
    assert all(split.side(side) for side in SIDES)
    assert audit_split(store, split, SplitConfig())["studies"] == len(patients)
    where = {key: side for side in SIDES for key in split.side(side)}
    for patient in set(patients):
        assert len({where[f"s{at}"] for at, owner in enumerate(patients) if owner == patient}) == 1


def test_aliases_copies_and_retouched_copies_stay_together(tmp_path: Path) -> None:
    original = picture(1)
    brighter = original * 1.4 + np.random.default_rng(0).normal(0, 0.02, original.shape) * (original != 0)
    store = write_store(
        tmp_path / "store",
        [
            ("lgg", "TCGA_HT_7473", True, picture(10)),
            ("brats", "Brats18_TCIA13_623_1", True, picture(11)),
            ("copy_a", None, True, original),
            ("copy_b", None, True, original),
            ("brighter", None, True, brighter),
            ("other", None, False, picture(2)),
        ],
    )
    groups = patient_groups(store, ALIASES.aliases, ALIASES.near_duplicate_correlation)
    assert sorted(sorted(keys) for keys in groups.values()) == [
        ["brats", "lgg"],
        ["brighter", "copy_a", "copy_b"],
        ["other"],
    ]


def test_audit_fails_on_a_patient_on_two_sides_and_on_a_study_left_out(tmp_path: Path) -> None:
    studies = [(f"s{at}", f"p{at // 2}", at % 4 > 1, picture(at)) for at in range(12)]
    store = write_store(tmp_path / "store", studies)
    split = make_split(store, SplitConfig(), 0)
    moved = split.model_copy(update={"train": split.train[1:], "test": (*split.test, split.train[0])})
    with pytest.raises(LeakageError, match="sides"):
        audit_split(store, moved, SplitConfig())
    with pytest.raises(LeakageError, match=split.train[0]):
        audit_split(store, split.model_copy(update={"train": split.train[1:]}), SplitConfig())
    with pytest.raises(LeakageError, match=split.train[0]):
        audit_split(store, split.model_copy(update={"test": (*split.test, split.train[0])}), SplitConfig())


def test_stage_stores_split_and_audit(tmp_path: Path) -> None:
    studies = [(f"s{at}", f"p{at}", at % 2 > 0, picture(at)) for at in range(20)]
    write_store(tmp_path / "store", studies)
    split = split_store(tmp_path / "store", tmp_path / "out", SplitConfig(), 0)
    assert [len(split.side(side)) for side in SIDES] == [14, 3, 3]
    for side in SIDES:
        assert {key in {f"s{at}" for at in range(1, 20, 2)} for key in split.side(side)} == {True, False}
    assert split.audit["near_duplicate_pairs"] == 0
