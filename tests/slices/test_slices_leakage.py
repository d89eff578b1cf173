"""Does the split keep knowledge of patients out of the test side? Labels that mean nothing tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from slicewise.config import DownloadConfig, PhantomConfig, PreprocessConfig, SliceConfig, SplitConfig
from slicewise.files import write_json
from slicewise.slices.build import build_store
from slicewise.slices.groups import find_links, patient_groups
from slicewise.slices.split import make_split
from slicewise.slices.store import INDEX, SliceStore
from slicewise.studies.acquire import acquire

N = 30
DRAWS = 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    """30 tiny phantoms."""
    folder = tmp_path_factory.mktemp("thirty")
    phantom = PhantomConfig(n_studies=N, shape=(28, 28, 24), spacing_mm=(6.5, 6.5, 5.5))
    acquire(["phantom"], folder / "data", DownloadConfig(phantom=phantom), seed=0)
    config = PreprocessConfig(slice=SliceConfig(size=32), workers=1)
    return build_store(folder / "data", folder / "store", config, seed=0)


@pytest.fixture(scope="module")
def scans(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    """The real patients, LGG and BraTS, at 32×32."""
    folder = tmp_path_factory.mktemp("scans")
    acquire([str(shared_data / "lgg"), str(shared_data / "brats")], folder / "data", DownloadConfig(), seed=0)
    config = PreprocessConfig(slice=SliceConfig(size=32, modalities=("flair",)), workers=0)
    return build_store(folder / "data", folder / "store", config, seed=0)


def pictures(store: SliceStore) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Every slice as a row, and the study of each."""
    planes = [store.images(key).reshape(len(store.studies[key].slices), -1) for key in store.studies]
    owners = np.repeat(list(store.studies), [len(part) for part in planes])
    return np.concatenate(planes).astype(np.float32), owners


def auc(x: NDArray[np.float32], y: NDArray[np.int_], train: NDArray[np.bool_], test: NDArray[np.bool_]) -> float:
    model = KNeighborsClassifier(3).fit(x[train], y[train])
    return float(roc_auc_score(y[test], model.predict_proba(x[test])[:, 1]))


def permuted(store: SliceStore, config: SplitConfig) -> tuple[list[float], list[float]]:
    """ROC-AUC under labels dealt at random to patients: under our split, and under one that deals slices."""
    x, owners = pictures(store)
    grouped, sliced = [], []
    links = find_links(store, config)
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        groups = patient_groups(store, links, config.aliases)
        coins = rng.permutation(np.arange(len(groups)) % 2)
        label = {key: coin for keys, coin in zip(groups.values(), coins, strict=True) for key in keys}
        y = np.array([label[owner] for owner in owners])
        split = make_split(store, config, seed, links)
        train, test = np.isin(owners, split.train), np.isin(owners, split.test)
        if len(set(y[test])) == 2:
            grouped.append(auc(x, y, train, test))
        shuffled = rng.permutation(len(x)) < test.sum()
        sliced.append(auc(x, y, ~shuffled, shuffled))
    return grouped, sliced


def test_labels_dealt_at_random_to_patients_cannot_be_learnt(store: SliceStore) -> None:
    """By patient, guessing stays guessing; by slice, a nearest neighbour recognises the patient."""
    grouped, sliced = permuted(store, SplitConfig())
    assert len(grouped) > DRAWS // 2
    assert abs(np.mean(grouped) - 0.5) < 0.12
    assert np.mean(sliced) > 0.7


def test_on_real_scans_only_a_split_by_slice_learns_labels_that_mean_nothing(scans: SliceStore) -> None:
    """The same on real patients, where a neighbouring slice all but gives the patient away."""
    config = SplitConfig(fractions=(0.5, 0.15, 0.35), aliases={"TCGA_HT_7473": ("Brats18_TCIA13_623_1",)})
    grouped, sliced = permuted(scans, config)
    assert len(grouped) > DRAWS // 2
    assert abs(np.mean(grouped) - 0.5) < 0.1
    assert np.mean(sliced) > 0.95
    # Chance within its own error, too: the draws' mean is not far from 0.5 by luck alone.
    assert abs(np.mean(grouped) - 0.5) < 4 * np.std(grouped) / np.sqrt(len(grouped))


@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.34, 0.33, 0.33), (0.9, 0.05, 0.05)])
def test_no_side_is_empty(store: SliceStore, fractions: tuple[float, float, float]) -> None:
    split = make_split(store, SplitConfig(fractions=fractions), 1)
    sizes = [len(split.train), len(split.val), len(split.test)]
    assert min(sizes) >= 1
    np.testing.assert_allclose(np.array(sizes) / N, fractions, atol=0.05)


def test_training_is_not_empty_when_its_share_is_small(tmp_path: Path, store: SliceStore) -> None:
    """Four patients by 0.2, 0.4, 0.4: two and two, and none to learn from."""
    index = store.index.model_copy(update={"studies": store.index.studies[:4]})
    (tmp_path / "studies").symlink_to(store.folder / "studies")
    write_json(tmp_path / INDEX, index.model_dump(mode="json"))
    split = make_split(SliceStore(tmp_path), SplitConfig(fractions=(0.2, 0.4, 0.4)), 0)
    assert min(len(split.train), len(split.val), len(split.test)) >= 1
