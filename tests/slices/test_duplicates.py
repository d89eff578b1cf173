"""Near-duplicates: copies are found however they were changed, and other heads are left alone."""

from __future__ import annotations

import io
import itertools
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_store import Made, write_store
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from scipy import ndimage

from slicewise.config import DownloadConfig, PreprocessConfig, SliceConfig, SplitConfig
from slicewise.files import sha256_file
from slicewise.slices.build import build_store
from slicewise.slices.duplicates import near_duplicates, nominate
from slicewise.slices.fingerprint import HASH_BITS, hashes, oriented, thumbnails
from slicewise.slices.groups import find_links, joined, patient_groups
from slicewise.slices.registration import registered_correlation
from slicewise.slices.split import SIDES, split_store
from slicewise.slices.store import SliceStore
from slicewise.slices.transform import prepare_slice
from slicewise.studies.acquire import acquire

CONFIG = SplitConfig()
BITS, CORRELATION = CONFIG.near_duplicate_bits, CONFIG.near_duplicate_correlation
SLICE = SliceConfig(modalities=("flair",), size=96)


def head(seed: int) -> Image.Image:
    """A head-like picture: a bright ring around a textured ellipse, 240×200 grey values."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1:1:240j, -1:1:200j]
    radius = np.hypot(rows / rng.uniform(0.82, 0.9), columns / rng.uniform(0.75, 0.85))
    texture = sum(
        ndimage.zoom(rng.normal(size=(n, n)), (240 / n, 200 / n), order=1) * weight
        for n, weight in ((8, 22), (24, 14))
    )
    plane = np.where(radius < 1, 110 + texture, 0) + 110 * ((radius > 0.93) & (radius < 1))
    return Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8))


def stored(picture: Image.Image) -> np.ndarray:
    """The picture as the store holds it, [1, 96, 96]."""
    return np.asarray(prepare_slice(np.asarray(picture)[None], ["unknown"], SLICE).image)


def jpeg(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=25)
    return Image.open(buffer)


def written(picture: Image.Image) -> Image.Image:
    copy = picture.copy()
    ImageDraw.Draw(copy).text((4, 4), "R 12/34", fill=255)
    return copy


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": jpeg,
    "half size": lambda p: p.resize((100, 120)),
    "stretched": lambda p: p.resize((260, 240)),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.4),
    "flatter": lambda p: ImageEnhance.Contrast(p).enhance(0.6),
    "gamma": lambda p: p.point(lambda v: 255 * (v / 255) ** 0.7),
    "letterboxed": lambda p: ImageOps.expand(p, border=(90, 10), fill=0),
    "cropped": lambda p: p.crop((8, 8, 192, 232)),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "quarter turn": lambda p: p.transpose(Image.Transpose.ROTATE_90),
    "slightly turned": lambda p: p.rotate(3, Image.Resampling.BILINEAR),
    "written on": written,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_copies_are_found_and_nothing_else(
    tmp_path: Path, change: Callable[[Image.Image], Image.Image]
) -> None:
    pictures = {f"head_{seed}": head(seed) for seed in range(6)}
    pictures["copy"] = change(pictures["head_3"])
    store = write_store(tmp_path, [Made(key, image=stored(picture)) for key, picture in pictures.items()])
    twins = near_duplicates(store, list(pictures), BITS, CORRELATION)
    assert [(pair.first, pair.second) for pair in twins] == [("head_3", "copy")]
    assert CORRELATION <= twins[0].similarity <= 1


def test_patients_are_never_joined_by_what_they_show(tmp_path: Path) -> None:
    """Only images of unknown patients are compared; a patient id says more than any resemblance."""
    pictures = [head(1), ImageOps.mirror(head(1)), jpeg(head(1)), jpeg(ImageOps.mirror(head(1)))]
    names = ["p1", "p2", None, None]
    made = [Made(f"s{at}", name, image=stored(p)) for at, (p, name) in enumerate(zip(pictures, names, strict=True))]
    store = write_store(tmp_path, made)
    groups = patient_groups(store, find_links(store, CONFIG), {})
    assert groups == {"p1": ["s0"], "p2": ["s1"], "s2": ["s2", "s3"]}


def test_constant_and_tiny_detail_images_do_not_crash(tmp_path: Path) -> None:
    flat = np.zeros((1, 96, 96))
    dot = flat.copy()
    dot[0, 40, 40] = 1
    store = write_store(tmp_path, [Made("flat", image=flat), Made("dot", image=dot), Made("ones", image=flat + 1)])
    assert near_duplicates(store, ["flat", "dot", "ones"], HASH_BITS, 0.9) == []


@settings(deadline=None, max_examples=20)
@given(n=st.integers(0, 40), bits=st.integers(0, 70), seed=st.integers(0, 99))
def test_nominees_are_what_comparing_one_by_one_finds(n: int, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**63, size=(n, 2, 8, 3), dtype=np.uint64)
    found = {(p["first"], p["second"], p["view"], p["distance"]) for p in nominate(codes, bits)}
    expected = set()
    for (a, b), view in itertools.product(itertools.combinations(range(n), 2), range(2)):
        distance = min(
            sum(int(x ^ y).bit_count() for x, y in zip(turn, codes[b, view, 0], strict=True))
            for turn in codes[a, view]
        )
        if distance <= bits:
            expected.add((a, b, view, distance))
    assert found == expected


def test_blocks_and_the_limit_keep_the_closest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    codes = np.random.default_rng(0).integers(0, 2**63, size=(50, 2, 8, 3), dtype=np.uint64)
    whole = nominate(codes, 85)
    monkeypatch.setattr("slicewise.slices.duplicates.BLOCK", 7)
    assert np.array_equal(nominate(codes, 85), whole)
    assert not caplog.records
    assert np.array_equal(nominate(codes, 85, limit=20), whole[:20])
    assert "are not compared" in caplog.text


def test_hash_of_a_turned_thumbnail_is_the_turned_hash() -> None:
    thumbnail = thumbnails(stored(head(2)))[0]
    for orientation, code in enumerate(hashes(thumbnail)):
        turned = hashes(oriented(thumbnail, orientation))[0]
        assert np.bitwise_count(code ^ turned).sum() <= 2


def test_registration_undoes_shift_stretch_and_turn() -> None:
    plane = thumbnails(stored(head(4)))[0]
    angle = np.deg2rad(4)
    matrix = 1.06 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = ndimage.affine_transform(plane, matrix, offset=(1, -4), order=1)
    assert np.corrcoef(plane.ravel(), moved.ravel())[0, 1] < 0.5
    assert registered_correlation(plane, moved) > 0.95
    others = [registered_correlation(plane, thumbnails(stored(head(seed)))[0]) for seed in range(5, 12)]
    assert max(others) < CORRELATION - 0.05


@pytest.fixture(scope="module")
def kaggle(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    folder = tmp_path_factory.mktemp("kaggle")
    acquire([str(shared_data / "kaggle")], folder / "data", DownloadConfig(), 0)
    return build_store(folder / "data", folder / "store", PreprocessConfig(workers=1), 0)


def test_real_images_identical_files_and_seen_copies_stay_together(
    kaggle: SliceStore, shared_data: Path, tmp_path: Path
) -> None:
    split = split_store(kaggle.folder, tmp_path, CONFIG, 0)
    side_of = {key: side for side in SIDES for key in split.side(side)}
    group_of = {key: name for name, keys in split.groups.items() for key in keys}
    by_content = defaultdict(list)
    for path in sorted((shared_data / "kaggle").rglob("*.*")):
        key = f"kaggle_{path.parent.name}_{path.stem}".replace(" ", "_")
        by_content[sha256_file(path)].append(key)
    identical = [keys for keys in by_content.values() if len(keys) > 1]
    assert identical
    seen = [
        ["kaggle_yes_Y105", "kaggle_yes_Y153"],
        ["kaggle_yes_Y112", "kaggle_yes_Y146"],
        ["kaggle_no_12_no", "kaggle_no_no_90"],
    ]
    for keys in identical + [pair for pair in seen if set(pair) <= set(group_of)]:
        assert len({group_of[key] for key in keys}) == 1, keys
        assert len({side_of[key] for key in keys}) == 1, keys
    assert split.audit["identical_groups"] == len(identical)
    assert split.audit["duplicate_groups_across_sides"] == 0


def test_real_images_no_class_is_mixed_and_no_group_grows_by_chance(kaggle: SliceStore) -> None:
    """All groups of this set were looked at: copies of one picture, of one class, at most five of them."""
    sets = joined(kaggle.studies, find_links(kaggle, CONFIG))
    assert max(map(len, sets)) <= 5
    assert all(len({kaggle.studies[key].has_tumour for key in keys}) == 1 for keys in sets)


def test_real_patients_scanned_alike_are_not_taken_for_copies(shared_data: Path, tmp_path: Path) -> None:
    """The two patients of the LGG set whose slices resemble each other most, as if their ids were unknown."""
    for name in ("TCGA_DU_7309_19960831", "TCGA_DU_8165_19970205"):
        if not (shared_data / "lgg" / name).is_dir():
            pytest.skip(f"{name} is not there")
        shutil.copytree(shared_data / "lgg" / name, tmp_path / "lgg" / name)
    acquire([str(tmp_path / "lgg")], tmp_path / "data", DownloadConfig(), 0)
    store = build_store(tmp_path / "data", tmp_path / "store", PreprocessConfig(slice=SLICE, workers=1), 0)
    made = [
        Made(f"{key}-{row}", image=np.asarray(store.images(key)[row]))
        for key in store.studies
        for row in range(8, len(store.studies[key].slices) - 8, 2)
    ]
    apart = write_store(tmp_path / "apart", made)
    twins = near_duplicates(apart, list(apart.studies), BITS, CORRELATION)
    assert all(pair.first.split("-")[0] == pair.second.split("-")[0] for pair in twins)
