"""The verbs ``store info``, ``store verify`` and ``store export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_samples import make_store, pixels
from typer.testing import CliRunner

from slicewise import cli_store
from slicewise.cli import build_app
from slicewise.errors import SliceWiseError, StoreError
from slicewise.slices.store import INDEX, SliceStore, StudyEntry
from slicewise.slices.store_export import export_npz

runner = CliRunner()


def call(*words: object) -> tuple[int, Any]:
    """A verb's exit code and its JSON result."""
    result = runner.invoke(build_app(), ["store", *map(str, words), "--json"])
    if isinstance(result.exception, SliceWiseError):
        raise result.exception
    return result.exit_code, json.loads(result.stdout) if result.stdout.startswith("{") else None


@pytest.fixture
def store(tmp_path: Path) -> SliceStore:
    return make_store(tmp_path / "store", ["a", "b", "c d"])


def test_export_holds_all_that_the_store_holds(store: SliceStore, tmp_path: Path) -> None:
    code, result = call("export", store.folder, "--format", "npz", "--out", tmp_path / "out")
    assert code == 0
    assert result["files"] == [str(tmp_path / "out" / f"{key}.npz") for key in store.studies]
    for seed, (key, study) in enumerate(store.studies.items()):
        with np.load(tmp_path / "out" / f"{key}.npz", allow_pickle=False) as arrays:
            assert np.array_equal(arrays["image"], pixels(seed)[0])
            assert ("label" in arrays) == study.has_labels
            assert not study.has_labels or np.array_equal(arrays["label"], pixels(seed)[1])
            assert arrays["z"].tolist() == [row.z for row in study.slices]
            assert [{1: True, 0: False, -1: None}[v] for v in arrays["tumour"].tolist()] == list(study.slices.tumour)
            assert arrays["selected"].tolist() == list(study.slices.selected)
            assert arrays["foreground"].tolist() == list(study.slices.foreground)
            assert arrays["pixel_mm2"].tolist() == list(study.slices.pixel_mm2)
            entry = json.loads(str(arrays["entry"]))
        assert StudyEntry.model_validate({**entry, "slices": study.slices}) == study


def test_some_studies_by_id_or_key(store: SliceStore, tmp_path: Path) -> None:
    chosen = ["--study", "a", "--study", "c d", "--study", "a"]
    code, result = call("export", store.folder, "--out", tmp_path / "out", *chosen)
    assert (code, len(result["files"])) == (0, 2)
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.npz")) == ["a", [*store.studies][2]]
    with pytest.raises(StoreError, match="has no study x"):
        export_npz(store, tmp_path / "out", ["a", "x"])


def test_only_an_earlier_export_is_replaced(store: SliceStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export_npz(store, out)
    export_npz(store, out, ["b"])
    assert sorted(path.name for path in out.iterdir()) == ["b.npz", "export.json"]
    for content in ("[]", '{"format": "other"}', "{", '"format"'):
        (out / "export.json").write_text(content)
        with pytest.raises(StoreError, match="not an earlier export"):
            export_npz(store, out)
    with pytest.raises(StoreError, match="not an earlier export"):
        export_npz(store, store.folder)
    with pytest.raises(StoreError, match="not an earlier export"):
        export_npz(store, store.folder / INDEX)
    store.verify()


def test_a_damaged_study_leaves_no_export(store: SliceStore, tmp_path: Path) -> None:
    (store.folder / "studies" / "b" / "image.npy").write_bytes(b"")
    with pytest.raises(StoreError, match=r"studies/b/image\.npy"):
        export_npz(store, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_info_counts(store: SliceStore) -> None:
    code, found = call("info", store.folder)
    rows = [row.tumour for study in store.studies.values() for row in study.slices]
    assert code == 0
    assert (found["studies"], found["studies_with_labels"], found["slices"]) == (3, 2, len(rows))
    counted = (found["slices_with_tumour"], found["slices_without"], found["slices_unknown"])
    assert counted == tuple(rows.count(value) for value in (True, False, None))
    assert found["sources"] == {"test": 3}
    assert found["modalities"] == {"flair": 3}
    assert found["bytes"] == sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())
    assert found["preprocessing"]["size"] == 32
    shown = runner.invoke(build_app(), ["store", "info", str(store.folder)]).stdout
    assert "slices with tumour" in shown


def test_verify_exits_1_and_names_every_bad_file(store: SliceStore) -> None:
    assert call("verify", store.folder)[0] == 0
    (store.folder / "studies" / "a" / "label.npy").unlink()
    (store.folder / "studies" / "b" / "image.npy").write_bytes(b"")
    (store.folder / "studies" / "spare").mkdir()
    code, result = call("verify", store.folder)
    assert code == 1
    assert ["a/label.npy" in result["faults"][0], "b/image.npy" in result["faults"][1]] == [True, True]
    assert len(result["faults"]) == 2
    assert result["leftovers"] == [str(store.folder / "studies" / "spare")]
    lines = runner.invoke(build_app(), ["store", "verify", str(store.folder)]).stdout.splitlines()
    assert len(lines) == 3


def test_leftovers_are_no_fault(store: SliceStore) -> None:
    (store.folder / "studies" / "spare").mkdir()
    assert call("verify", store.folder) == (
        0,
        {
            "store": str(store.folder),
            "studies": 3,
            "faults": [],
            "leftovers": [str(store.folder / "studies" / "spare")],
        },
    )


@pytest.mark.parametrize("words", [("info",), ("export", "x"), ("export", "x", "--out", "y", "--format", "zip"), ()])
def test_wrong_usage_exits_2(words: tuple[str, ...]) -> None:
    assert runner.invoke(build_app(), ["store", *words]).exit_code == 2


@pytest.mark.parametrize("verb", ["info", "verify", "export"])
def test_no_store_is_the_jobs_error(tmp_path: Path, verb: str) -> None:
    out = ["--out", tmp_path / "out"] if verb == "export" else []
    with pytest.raises(StoreError, match="is not a slice store"):
        call(verb, tmp_path, *out)


def test_every_verb_has_an_example() -> None:
    for verb in (cli_store.info, cli_store.verify, cli_store.export):
        assert f"Example: slicewise store {verb.__name__}" in str(verb.__doc__)
