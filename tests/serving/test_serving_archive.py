"""The model archive: what it holds, and that it is made beside nobody else's files."""

from __future__ import annotations

import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from serving.torchserve.archive import build_archive, worker_threads
from slicewise.config import ServeConfig
from slicewise.cpus import available_cpus
from slicewise.errors import BundleError


def test_archive_holds_data_and_settings(bundle_dir: Path, tmp_path: Path) -> None:
    serve = ServeConfig(model_name="tumour-2", workers=2, batch_size=5, max_batch_delay_ms=7)
    archive = build_archive(bundle_dir, tmp_path, serve)
    assert [path.name for path in tmp_path.iterdir()] == ["tumour-2.mar"]
    with zipfile.ZipFile(archive) as content:
        names = set(content.namelist())
        settings = yaml.safe_load(content.read("model-config.yaml"))
    assert {"model.safetensors", "bundle.json", "model_card.md", "handler.py"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth"))]
    assert (settings["minWorkers"], settings["batchSize"], settings["maxBatchDelay"]) == (2, 5, 7)


@pytest.mark.parametrize("workers", [1, 2, 3, 1000])
def test_workers_threads_are_at_most_twice_the_cpus(workers: int) -> None:
    cpus = available_cpus()
    threads = worker_threads(ServeConfig(workers=workers))
    assert 1 <= threads <= cpus
    assert workers * threads <= max(2 * cpus, workers)
    assert threads == cpus or workers > 2


def test_named_threads_are_the_workers() -> None:
    assert worker_threads(ServeConfig.model_validate({"workers": 2, "predictor": {"threads": 3}})) == 3


def test_archives_are_made_side_by_side_and_nothing_else_is_touched(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TorchServe's archiver empties ``<temp>/<model name>``, works there, and packs whatever lies there."""
    other = tmp_path / "temp" / "slicewise" / "handler.py"
    other.parent.mkdir(parents=True)
    other.write_text("# of another process\n")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: build_archive(bundle_dir, tmp_path / str(n), ServeConfig()), range(8)))
    for archive in made:
        with zipfile.ZipFile(archive) as content:
            assert content.testzip() is None
            assert "model.safetensors" in content.namelist()
            assert b"another process" not in content.read("handler.py")
        assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    assert [path.name for path in (tmp_path / "temp").rglob("*")] == ["slicewise", "handler.py"]
    assert other.read_text() == "# of another process\n"


def test_a_changed_bundle_is_not_archived(bundle_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    copy.mkdir()
    for path in bundle_dir.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "model_card.md").write_text("other")
    with pytest.raises(BundleError, match="SHA-256"):
        build_archive(copy, tmp_path / "store", ServeConfig())
    assert not (tmp_path / "store").exists()
