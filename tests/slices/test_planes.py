"""Axial, coronal and sagittal slices of one volume, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import PREPROCESS, SEED, SmallData

from slicewise.config import validate
from slicewise.config.preprocess import Plane, PreprocessConfig
from slicewise.errors import StudyError
from slicewise.slices.planes import cut, cut_study, uncut
from slicewise.slices.prepare import prepare_study
from slicewise.slices.store import StudyEntry
from slicewise.studies.reading import read_study

PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PLANES), st.tuples(*[st.integers(1, 7)] * 3))
def test_uncut_undoes_cut(plane: Plane, shape: tuple[int, int, int]) -> None:
    volume = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(uncut(cut(volume, plane), plane), volume)


def test_the_head_is_at_the_top_and_the_face_on_the_left() -> None:
    """``[Z, H, W]``: inferior → superior, anterior → posterior, right → left."""
    volume = np.zeros((4, 5, 6))
    volume[3, 0, 1] = 1  # superior, anterior, on the patient's right
    coronal, sagittal = cut(volume, "coronal"), cut(volume, "sagittal")
    assert coronal.shape == (5, 4, 6)
    assert sagittal.shape == (6, 4, 5)
    assert tuple(np.argwhere(coronal)[0]) == (0, 0, 1)
    assert tuple(np.argwhere(sagittal)[0]) == (1, 0, 0)


@pytest.mark.parametrize("plane", PLANES)
def test_a_store_of_each_plane(small: SmallData, tmp_path: Path, plane: Plane) -> None:
    """Frames, spacing and tumour pixels agree with the study itself."""
    record = next(r for r, s in zip(small.dataset.records, small.store.studies.values(), strict=True) if s.has_tumour)
    config = validate(
        PreprocessConfig, PREPROCESS.model_dump() | {"slice": {**PREPROCESS.slice.model_dump(), "plane": plane}}
    )
    entry = prepare_study(record, small.dataset.root, tmp_path, config, SEED)
    assert isinstance(entry, StudyEntry)
    study = read_study(record, small.dataset.root)
    turned = cut_study(study, plane)
    assert entry.quality.frame == turned.channels[0].shape
    assert sorted(entry.spacing_mm) == sorted(study.spacing_mm)
    assert entry.spacing_mm[0] == study.spacing_mm[PLANES.index(plane)]
    assert turned.labels is not None
    for row in entry.slices:
        pixels = int((turned.labels[row.z] > 0).sum())
        assert row.tumour is (None if 0 < pixels < config.min_tumour_pixels else pixels > 0)
    stored = np.load(tmp_path / "studies" / entry.key / "label.npy")
    volume = (stored > 0).sum(axis=(1, 2)) @ np.array([row.pixel_mm2 for row in entry.slices]) * entry.spacing_mm[0]
    assert study.labels is not None
    truth = (study.labels > 0).sum() * np.prod(study.spacing_mm)
    assert volume == pytest.approx(truth, rel=0.25)


def test_pictures_without_spacing_have_one_plane(small: SmallData) -> None:
    from dataclasses import replace

    study = replace(read_study(small.dataset.records[0], small.dataset.root), spacing_known=False)
    assert cut_study(study, "axial") is study
    with pytest.raises(StudyError, match=r"coronal.*plane=axial"):
        cut_study(study, "coronal")
