"""Synthetic studies: brain-like scans with tumours, for trying the pipeline without patients.

Not a physical simulation: tissue shares per voxel (``anatomy``, ``lesions``) become four modalities by a
table of relative intensities with the usual contrasts, then each study gets its own scanner: intensity
scale, bias field, blur, Rician noise (Gudbjartsson & Patz, 1995), and for some a sequence of thick slices.

A phantom file says so in its own header (``descrip``), so that one that has lost its folder and its name is still
not taken for a patient's.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicewise.config import MODALITIES, PhantomConfig
from slicewise.studies.anatomy import Anatomy, make_anatomy
from slicewise.studies.fields import Grid, Volume, make_grid, smooth_noise
from slicewise.studies.gunzip import GZIP_MAGIC, GzipError, gunzip_head
from slicewise.studies.lesions import Harmless, Lesions, draw_tumours, grow, harmless, push_aside

logger = logging.getLogger(__name__)

COMPRESS_LEVEL = 1
DESCRIPTION = "SliceWise phantom, synthetic"  # in each file's header
HEAD_BYTES, NIFTI1_BYTES = 1 << 16, 348
DESCRIP = slice(148, 228)  # the field of that name in a NIfTI-1 header
THICK_SHARE = 0.15  # of the sequences
# Relative intensity of:  fluid grey  white oedema necrosis solid enhancing hyperintensity vessel
CONTRAST: dict[str, tuple[float, ...]] = {
    "flair": (0.18, 0.62, 0.51, 0.86, 0.58, 0.84, 0.78, 0.92, 0.40),
    "t1": (0.26, 0.64, 0.82, 0.60, 0.40, 0.48, 0.60, 0.70, 0.50),
    "t1ce": (0.26, 0.62, 0.78, 0.57, 0.34, 0.46, 1.30, 0.68, 1.15),
    "t2": (1.10, 0.56, 0.40, 0.82, 0.98, 0.90, 0.66, 0.68, 0.45),
}

# How much each of these differs from study to study: lesions more than normal tissue.
TABLE_SPREAD = np.asarray([0.05, 0.05, 0.03, 0.12, 0.1, 0.12, 0.12, 0.1, 0.15], dtype=np.float32)


@dataclass(frozen=True)
class PhantomStudy:
    """One synthetic study.

    Attributes:
        study_id: E.g. ``Phantom_0007``.
        images: Per modality, ``[X, Y, Z]`` int16, exactly 0 outside the brain.
        label: ``[X, Y, Z]`` uint8 with BraTS values 0, 1, 2, 4.
        affine: 4×4, voxel to mm; axis codes L, P, S as in BraTS.
        tumour: Whether there is a tumour.
    """

    study_id: str
    images: dict[str, NDArray[np.int16]]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    tumour: bool


def is_healthy(index: int, healthy_share: float, seed: int) -> bool:
    """Whether study ``index`` has no tumour.

    A rotation rule: among any ``n`` consecutive studies the healthy ones number ``n × healthy_share``,
    rounded up or down, so that even a small set has both kinds.
    """
    phase = float(np.random.default_rng([seed, 0x5EED]).random())
    return int(np.floor((index + 1) * healthy_share + phase)) > int(np.floor(index * healthy_share + phase))


def make_phantom(index: int, config: PhantomConfig, seed: int) -> PhantomStudy:
    """Make one study; the same arguments give the same voxels."""
    rng = np.random.default_rng([seed, index])
    grid = make_grid(config.shape, config.spacing_mm, size=float(rng.uniform(0.93, 1.0)))
    ill = not is_healthy(index, config.healthy_share, seed)
    tumours = draw_tumours(rng) if ill else []
    inner = push_aside(grid, tumours, strength=float(rng.uniform(0.1, 0.35)))
    anatomy = make_anatomy(rng, grid, inner)
    lesions = grow(rng, grid, anatomy, tumours)
    tissues = _tissues(anatomy, lesions, harmless(rng, grid, anatomy))
    level = float(np.exp(rng.uniform(np.log(150), np.log(2500))))
    images = {name: _scan(rng, grid, anatomy, tissues, name, level) for name in MODALITIES}
    sx, sy, sz = config.spacing_mm
    affine = np.diag([-sx, -sy, sz, 1.0])
    affine[1, 3] = (config.shape[1] - 1) * sy
    return PhantomStudy(f"Phantom_{index:04d}", images, lesions.label, affine, bool(lesions.label.any()))


def _tissues(anatomy: Anatomy, lesions: Lesions, other: Harmless) -> Volume:
    """Tissue shares ``[9, X, Y, Z]`` in the order of ``CONTRAST``, summing to 1 at each voxel."""
    ill = [lesions.oedema, lesions.necrotic, lesions.solid, lesions.enhancing]
    rest = 1 - sum(ill[1:], ill[0])
    vessel = other.vessel * rest
    rest = rest - vessel
    # A scar or cavity takes its share of grey and white alike; fluid is there already.
    sound = (1 - other.bright - other.cavity) / np.maximum(anatomy.grey + anatomy.white, 1e-6)
    sound = np.clip(sound - anatomy.csf / np.maximum(anatomy.grey + anatomy.white, 1e-6), 0, 1) * rest
    grey, white, bright = anatomy.grey * sound, anatomy.white * sound, other.bright * rest
    return np.stack([rest - grey - white - bright, grey, white, *ill, bright, vessel])


def _scan(
    rng: np.random.Generator, grid: Grid, anatomy: Anatomy, tissues: Volume, name: str, level: float
) -> NDArray[np.int16]:
    """One modality as one scanner would give it: ``[X, Y, Z]`` int16, 0 outside the brain."""
    table = np.asarray(CONTRAST[name], dtype=np.float32)
    table = table * (1 + TABLE_SPREAD * rng.standard_normal(table.size, dtype=np.float32))
    signal = np.tensordot(table, tissues, axes=1)
    signal *= 1 + 0.035 * smooth_noise(rng, grid, 5)  # texture
    blur = (rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.5), rng.uniform(0.0, 0.5))
    signal = ndimage.gaussian_filter(signal, blur, truncate=2.5)
    signal *= np.exp(np.float32(rng.uniform(0.04, 0.14)) * smooth_noise(rng, grid, 90))  # bias field
    sigma = np.float32(rng.uniform(0.012, 0.035))
    noise = rng.standard_normal((2, *grid.shape), dtype=np.float32) * sigma
    signal = np.hypot(signal + noise[0], noise[1])
    thick, axis, slice_mm = rng.random() < THICK_SHARE, int(rng.choice(3, p=[0.15, 0.1, 0.75])), rng.uniform(4, 6)
    if thick:
        signal = _thick_slices(signal, axis, round(slice_mm / grid.step[axis]))
    scaled = signal * np.float32(level * np.exp(rng.normal(0, 0.3)))
    return np.where(anatomy.brain, np.clip(np.rint(scaled), 1, 32767), 0).astype(np.int16)


def _thick_slices(signal: Volume, axis: int, step: int) -> Volume:
    """What a sequence of slices ``step`` voxels thick leaves after interpolation to the common grid."""
    n = signal.shape[axis]
    if step < 2 or n < 2 * step:
        return signal
    mean = ndimage.uniform_filter1d(signal, step, axis=axis)
    centres = np.arange(step // 2, n, step)
    place = np.clip((np.arange(n) - centres[0]) / step, 0, len(centres) - 1)
    low = np.minimum(place.astype(int), len(centres) - 2)
    shape = [-1 if at == axis else 1 for at in range(3)]
    share = (place - low).astype(np.float32).reshape(shape)
    return np.asarray(np.take(mean, centres[low], axis) * (1 - share) + np.take(mean, centres[low + 1], axis) * share)


def write_phantoms(
    config: PhantomConfig, seed: int, folder: Path, progress: Callable[[str, int, int], None] | None = None
) -> None:
    """Write ``config.n_studies`` studies in BraTS naming; the same arguments give the same bytes.

    Args:
        config: How many, and of what size.
        seed: Source of every random choice.
        folder: Gets one folder per study.
        progress: Called with (what, done, total) after each study.
    """
    for index in range(config.n_studies):
        write_phantom(index, config, seed, folder)
        if progress is not None:
            progress("phantom", index + 1, config.n_studies)
    logger.info("made %d phantoms in %s", config.n_studies, folder)


def write_phantom(index: int, config: PhantomConfig, seed: int, folder: Path) -> Path:
    """Write study ``index`` of ``config.n_studies``; its folder, below ``folder``."""
    study = make_phantom(index, config, seed)
    _write_study(study, folder / study.study_id)
    return folder / study.study_id


def _write_study(study: PhantomStudy, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    volumes: dict[str, NDArray[np.int16] | NDArray[np.uint8]] = {**study.images, "seg": study.label}
    for name, volume in volumes.items():
        image = nib.Nifti1Image(volume, study.affine)
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = DESCRIPTION
        packed = gzip.compress(image.to_bytes(), compresslevel=COMPRESS_LEVEL, mtime=0)
        (folder / f"{study.study_id}_{name}.nii.gz").write_bytes(packed)


def is_phantom_file(path: Path) -> bool:
    """Whether a NIfTI file says in its header that it is a phantom; False for what cannot be read."""
    try:
        with path.open("rb") as handle:
            start = handle.read(HEAD_BYTES)
        head = gunzip_head(start, NIFTI1_BYTES) if start.startswith(GZIP_MAGIC) else start
    except (OSError, GzipError):
        return False
    return head[DESCRIP].startswith(DESCRIPTION.encode())
