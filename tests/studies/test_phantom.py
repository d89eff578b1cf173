from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from slicewise.config import MODALITIES, PhantomConfig
from slicewise.studies.phantom import PhantomStudy, is_healthy, make_phantom, write_phantoms

CONFIG = PhantomConfig()
TINY = PhantomConfig(n_studies=4, shape=(40, 40, 14), spacing_mm=(4.0, 4.0, 8.0))


@pytest.fixture(scope="module")
def studies() -> list[PhantomStudy]:
    return [make_phantom(index, CONFIG, seed=3) for index in range(12)]


def test_shape_type_background_and_labels(studies: list[PhantomStudy]) -> None:
    for study in studies:
        assert tuple(study.images) == MODALITIES
        brain = study.images["flair"] > 0
        assert 0.15 < brain.mean() < 0.5
        for image in study.images.values():
            assert image.dtype == np.int16
            assert image.shape == CONFIG.shape
            assert np.array_equal(image > 0, brain)
        assert study.label.dtype == np.uint8
        assert set(np.unique(study.label)) <= {0, 1, 2, 4}
        assert not study.label[~brain].any()
        assert study.tumour == bool(study.label.any())


def test_axes_are_those_of_brats(studies: list[PhantomStudy]) -> None:
    assert nib.aff2axcodes(studies[0].affine) == ("L", "P", "S")
    assert np.allclose(nib.affines.voxel_sizes(studies[0].affine), CONFIG.spacing_mm)


def test_same_arguments_same_voxels() -> None:
    first, again, other = (make_phantom(5, TINY, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first.images[m], again.images[m]) for m in MODALITIES)
    assert np.array_equal(first.label, again.label)
    assert not np.array_equal(first.images["t1"], other.images["t1"])


@pytest.mark.parametrize("share", [0.0, 0.15, 0.25, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_healthy_share_holds_in_any_run_of_studies(share: float, seed: int) -> None:
    healthy = [is_healthy(index, share, seed) for index in range(60)]
    for start in range(52):
        assert abs(sum(healthy[start : start + 8]) - 8 * share) < 1
    assert sum(healthy) == pytest.approx(60 * share, abs=1)


def test_tumours_have_the_stated_sizes_and_contrast(studies: list[PhantomStudy]) -> None:
    voxel_mm3 = float(np.prod(CONFIG.spacing_mm))
    ill = [study for study in studies if study.tumour]
    assert len(ill) == 9
    for study in ill:
        diameter = (6 / np.pi * np.count_nonzero(study.label) * voxel_mm3) ** (1 / 3)
        assert 8 < diameter < 70
        brain = (study.images["flair"] > 0) & (study.label == 0)
        if (study.label == 2).sum() > 50:
            assert study.images["flair"][study.label == 2].mean() > 1.2 * study.images["flair"][brain].mean()
        if (study.label == 4).sum() > 50:
            assert study.images["t1ce"][study.label == 4].mean() > 1.1 * study.images["t1ce"][brain].mean()


def test_healthy_brains_hold_bright_spots_too() -> None:
    """No threshold on FLAIR tells the ill from the healthy: caps around the ventricles are as bright as oedema."""
    healthy = [i for i in range(24) if is_healthy(i, CONFIG.healthy_share, 3)]
    counts = []
    for index in healthy:
        flair = make_phantom(index, CONFIG, seed=3).images["flair"].astype(float)
        counts.append(np.count_nonzero(flair > 1.35 * np.median(flair[flair > 0])))
    assert np.median(counts) > 50


def test_scanners_differ_in_scale(studies: list[PhantomStudy]) -> None:
    medians = [np.median(study.images["t1"][study.images["t1"] > 0]) for study in studies]
    assert max(medians) > 3 * min(medians)


def test_brain_is_mostly_one_piece(studies: list[PhantomStudy]) -> None:
    for study in studies:
        pieces, n = ndimage.label(study.images["t1"] > 0)
        sizes = ndimage.sum_labels(np.ones_like(pieces), pieces, range(1, n + 1))
        assert sizes.max() > 0.8 * sizes.sum()


def test_files_are_the_same_bytes_and_named_as_in_brats(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    write_phantoms(TINY, 0, tmp_path / "a", lambda *step: seen.append(step))
    write_phantoms(TINY, 0, tmp_path / "b")
    names = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*.nii.gz"))
    assert len(names) == 4 * 5
    assert names[0] == "Phantom_0000/Phantom_0000_flair.nii.gz"
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    assert seen == [("phantom", done, 4) for done in (1, 2, 3, 4)]
    image = nib.load(tmp_path / "a" / names[0])
    assert np.array_equal(np.asarray(image.dataobj), make_phantom(0, TINY, 0).images["flair"])
