from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from slicewise.config import MODALITIES, PhantomConfig
from slicewise.studies.anatomy import Anatomy, make_anatomy
from slicewise.studies.fields import Grid, make_grid, noise_at
from slicewise.studies.lesions import Harmless, Lesions, draw_tumours, grow, harmless
from slicewise.studies.phantom import (
    DESCRIPTION,
    PhantomStudy,
    _thick_slices,
    _tissues,
    is_healthy,
    is_phantom_file,
    make_phantom,
    write_phantoms,
)

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


def test_a_phantom_file_tells_what_it_is_by_its_header_alone(tmp_path: Path) -> None:
    """Whatever a file is called and wherever it ends up: its header says that no patient is behind it."""
    write_phantoms(TINY, 0, tmp_path / "source")
    files = sorted((tmp_path / "source").rglob("*.nii.gz"))
    assert len(files) == 20
    real = tmp_path / "real.nii.gz"
    nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)).to_filename(real)
    assert not is_phantom_file(real)
    for number, path in enumerate(files):
        stranger = path.rename(tmp_path / f"scan{number}.nii.gz")
        description = nib.load(stranger).header["descrip"].item().decode()
        assert description == DESCRIPTION
        assert is_phantom_file(stranger)
        assert "synthetic" in description


@pytest.fixture(scope="module")
def parts() -> list[tuple[Grid, Anatomy, Lesions, Harmless]]:
    made = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        grid = make_grid((64, 64, 26), (3.0, 3.0, 5.4), size=0.97)
        anatomy = make_anatomy(rng, grid, [np.broadcast_to(axis, grid.shape) for axis in grid.axes])
        made.append((grid, anatomy, grow(rng, grid, anatomy, draw_tumours(rng)), harmless(rng, grid, anatomy)))
    return made


def test_tissue_shares_are_shares(parts: list[tuple[Grid, Anatomy, Lesions, Harmless]]) -> None:
    for _, anatomy, lesions, other in parts:
        tissues = _tissues(anatomy, lesions, other)
        inside = tissues[:, anatomy.brain]
        np.testing.assert_allclose(inside.sum(axis=0), 1, atol=1e-4)
        assert inside.min() > -1e-4
        assert inside.max() < 1 + 1e-4


def test_a_brain_has_its_parts(parts: list[tuple[Grid, Anatomy, Lesions, Harmless]]) -> None:
    """Shares of an adult brain within wide limits, a fissure between the halves, grey outside and white inside."""
    for _, anatomy, _, _ in parts:
        csf, grey, white = (float(part[anatomy.brain].mean()) for part in (anatomy.csf, anatomy.grey, anatomy.white))
        assert csf + grey + white == pytest.approx(1, abs=1e-4)
        assert 0.05 < csf < 0.35
        assert 0.25 < grey < 0.6
        assert 0.2 < white < 0.6
        shallow = anatomy.brain & (anatomy.depth_mm > 2) & (anatomy.depth_mm < 5)
        deep = anatomy.depth_mm > 22
        assert anatomy.grey[shallow].mean() > 1.5 * anatomy.grey[deep].mean()
        assert anatomy.white[deep].mean() > 1.5 * anatomy.white[shallow].mean()


def test_a_fissure_parts_the_halves(parts: list[tuple[Grid, Anatomy, Lesions, Harmless]]) -> None:
    middle, beside = [], []
    for grid, anatomy, _, _ in parts:
        x, _, z = grid.axes
        above = (anatomy.depth_mm > 6) & (z > 32) & (z < 50)
        middle.append(anatomy.white[above & (np.abs(x) < 3)].mean())
        beside.append(anatomy.white[above & (np.abs(x) > 8) & (np.abs(x) < 20)].mean())
    assert np.mean(middle) < 0.6 * np.mean(beside)


def test_nothing_harmless_is_labelled(parts: list[tuple[Grid, Anatomy, Lesions, Harmless]]) -> None:
    """Scars, cavities and caps far from a tumour carry no label, and some brains have old infarcts, most none."""
    infarcts = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        grid, anatomy = parts[seed % 8][:2]
        infarcts += bool((harmless(rng, grid, anatomy).cavity > 0.5).any())
    assert 2 <= infarcts <= 16
    for _, anatomy, lesions, other in parts:
        tumour = lesions.oedema + lesions.necrotic + lesions.solid + lesions.enhancing
        assert not lesions.label[tumour < 0.05].any()
        assert (other.bright[anatomy.brain & (tumour < 0.05)] > 0.5).any()


def test_no_threshold_on_brightness_finds_the_ill() -> None:
    """Classification is not trivial: mimics are as bright as oedema, so how bright a brain gets says little."""
    config = PhantomConfig(shape=(48, 48, 20), spacing_mm=(4.0, 4.0, 7.0), healthy_share=0.5)
    studies = [make_phantom(index, config, seed=5) for index in range(40)]
    truth = [study.tumour for study in studies]
    for name in ("flair", "t2", "t1ce"):
        values = [study.images[name][study.images[name] > 0] for study in studies]
        for score in (99.0, 99.5):
            area = roc_auc_score(truth, [np.percentile(value, score) / np.median(value) for value in values])
            assert area < 0.93, (name, score, area)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_are_means_joined_by_lines(axis: int) -> None:
    ramp = np.moveaxis(np.broadcast_to(np.arange(40, dtype=np.float32), (6, 6, 40)), 2, axis)
    thick = _thick_slices(ramp, axis, 4)
    assert thick.shape == ramp.shape
    line = np.moveaxis(thick, axis, 2)[0, 0]
    np.testing.assert_allclose(np.diff(line)[5:-5], 1, atol=1e-4)  # a ramp stays one
    noise = np.random.default_rng(0).standard_normal((12, 12, 40)).astype(np.float32)
    noise = np.moveaxis(noise, 2, axis)
    smooth = np.moveaxis(_thick_slices(noise, axis, 4), axis, 2)
    kinks = np.abs(np.diff(smooth, n=2, axis=2)).mean(axis=(0, 1)) > 1e-4
    assert kinks.sum() <= 11  # a line between neighbouring slices, a kink at each
    assert np.array_equal(_thick_slices(noise, axis, 1), noise)


def test_noise_at_straight_coordinates_is_smooth_unit_noise() -> None:
    grid = make_grid((40, 40, 40), (3.5, 4.2, 3.4), size=1.0)
    axes = [np.broadcast_to(axis, grid.shape) for axis in grid.axes]
    fields = [noise_at(np.random.default_rng(seed), axes, 12.0) for seed in range(6)]
    assert np.std(fields) == pytest.approx(1, abs=0.12)
    assert np.mean([np.corrcoef(f[:-1].ravel(), f[1:].ravel())[0, 1] for f in fields]) > 0.8
    assert not np.array_equal(fields[0], fields[1])
