from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from small_run import SmallData

from slicewise.slices.batches import SliceData
from slicewise.slices.regions import known_mask, labels_of, region_maps
from slicewise.slices.store import SliceStore

LABELS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=3), elements=st.sampled_from([0, 1, 2, 4]))


@given(LABELS)
def test_regions_and_back(labels: NDArray[np.uint8]) -> None:
    regions = region_maps(labels)
    assert regions.shape == (*labels.shape[:-2], 3, *labels.shape[-2:])
    np.testing.assert_array_equal(labels_of(np.moveaxis(regions, -3, 0)), labels)


def test_regions_by_table() -> None:
    """WT is 1, 2 and 4; TC is 1 and 4; ET is 4."""
    regions = region_maps(np.array([[0, 1, 2, 4]], dtype=np.uint8))
    np.testing.assert_array_equal(regions[:, 0], [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]])


@given(hnp.arrays(bool, (3, 4, 4)))
def test_the_innermost_region_wins(regions: NDArray[np.bool_]) -> None:
    """Maps of a network need not be nested: labels still name every marked pixel."""
    labels = labels_of(regions)
    np.testing.assert_array_equal(labels == 4, regions[2])
    np.testing.assert_array_equal(labels > 0, regions.any(axis=0))


@pytest.mark.parametrize(
    ("known", "mask"),
    [((), [0, 0, 0]), (("WT",), [1, 0, 0]), (("ET", "WT"), [1, 0, 1]), (("WT", "TC", "ET"), [1, 1, 1])],
)
def test_known_regions(known: tuple[str, ...], mask: list[int]) -> None:
    assert known_mask(known).tolist() == [bool(value) for value in mask]


def test_batches_tell_known_from_empty(small: SmallData) -> None:
    """A region that a study's label does not tell is 0 in the batch and marked unknown."""
    store = SliceStore(small.store.folder)
    key = next(key for key, study in store.studies.items() if study.has_tumour)
    store.studies[key] = store.studies[key].model_copy(update={"known_regions": ("WT",)})
    data = SliceData(store, [key], selected_only=False)
    batch = data.fetch(range(len(data)))
    assert batch.known.tolist() == [[1, 0, 0]] * len(data)
    np.testing.assert_array_equal(batch.regions[:, 0] > 0, store.labels(key) > 0)
    assert batch.regions[:, 0].any()
    assert not batch.regions[:, 1:].any()
