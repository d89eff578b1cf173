"""The quality record: what is measured of each study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_run import SmallData

from slicewise.config import DownloadConfig, PreprocessConfig, validate
from slicewise.slices.build import build_store
from slicewise.slices.quality import estimate_snr
from slicewise.studies.acquire import acquire


@pytest.mark.parametrize(("signal", "noise"), [(500, 5), (500, 50), (40, 20), (1000, 1)])
def test_the_ratio_of_signal_to_noise_is_found(signal: float, noise: float) -> None:
    """On a smooth ramp with Gaussian noise of known deviation, within a tenth."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:120, :120]
    plane = signal + 0.1 * signal * (rows - columns) / 120 + rng.normal(0, noise, (120, 120))
    head = np.hypot(rows - 60, columns - 60) < 50
    plane[~head] = 0
    assert estimate_snr(plane, head) == pytest.approx(signal / noise, rel=0.1)


def test_what_cannot_be_told_is_none() -> None:
    assert estimate_snr(np.full((50, 50), 7), np.ones((50, 50), dtype=bool)) is None
    assert estimate_snr(np.random.default_rng(1).normal(size=(50, 50)), np.eye(50, dtype=bool)) is None


def test_every_study_of_a_store_has_its_record(small: SmallData) -> None:
    for entry in small.store.studies.values():
        count, height, width = entry.quality.frame
        assert (height, width) == (48, 48)
        assert count >= len(entry.slices)
        kept = sum(row.foreground for row in entry.slices) / count
        assert kept <= entry.quality.coverage + 1e-3
        assert entry.quality.coverage < 0.9
        assert set(entry.quality.snr) == set(entry.modalities)
        assert all(value is None or value > 1 for value in entry.quality.snr.values())


def test_real_sets_have_sensible_records(shared_data: Path, tmp_path: Path) -> None:
    """Skull-stripped BraTS, LGG with skull, and Kaggle's pictures, a few of each."""
    sources = [str(shared_data / name) for name in ("brats", "lgg", "kaggle")]
    acquire(sources, tmp_path / "data", validate(DownloadConfig, {"max_studies": 2}), seed=0)
    store = build_store(tmp_path / "data", tmp_path / "store", PreprocessConfig(workers=1), seed=0)
    assert not store.index.failures
    by_source: dict[str, list[float]] = {}
    for entry in store.studies.values():
        by_source.setdefault(entry.source, []).append(entry.quality.coverage)
        assert entry.spacing_known is (entry.source == "brats")
    assert all(0.08 < share < 0.25 for share in by_source["brats"])
    assert all(0.2 < share < 0.7 for share in by_source["lgg"])
    assert all(0.2 < share < 0.95 for share in by_source["kaggle"])
