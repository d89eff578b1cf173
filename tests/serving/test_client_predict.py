"""``slicewise predict`` over a URL: the same answers as with the bundle, and a killed run goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from uploaded_study import make_upload

from serving.client import open_model
from serving.local import start_detached, stop_stack
from serving.state import StackState
from serving.status import BackendError
from slicewise.config import ServeConfig
from slicewise.errors import UsageError
from slicewise.inference.predict.explain_file import ExplainJob, explain_file
from slicewise.inference.predict.item_records import ItemRecord
from slicewise.inference.predict.journal import NAME as JOURNAL
from slicewise.inference.predict.model import LocalModel, PredictModel
from slicewise.inference.predict.run import PredictJob, predict_items
from slicewise.inference.predictor import PredictOptions, Predictor

PROTOCOLS = ("v2-http", "v2-grpc", "rest")
Encode = Callable[..., bytes]
Local = tuple[tuple[ItemRecord, ...], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, head: NDArray[np.uint8], encoded: Encode) -> Path:
    """Pictures of several sizes and kinds, a study, and what is bad."""
    folder = tmp_path_factory.mktemp("scans")
    upload = make_upload(tmp_path_factory.mktemp("upload"))
    for name, path in upload.nifti.items():
        (folder / f"patient_{name}.nii.gz").write_bytes(path.read_bytes())
    (folder / "image.dcm").write_bytes(upload.dicom[8].read_bytes())
    for index in range(5):
        (folder / f"slice_{index}.png").write_bytes(encoded(np.roll(head, index, axis=0)[: 151 - 9 * (index % 2)]))
    (folder / "photo.jpg").write_bytes(encoded(head, "JPEG"))
    (folder / "four.npy").write_bytes(encoded(np.stack([head, head // 2, head, 255 - head]), "npy"))
    (folder / "broken.png").write_bytes(encoded(head)[:200])
    (folder / "empty.png").write_bytes(encoded(np.zeros_like(head)))
    return folder


@pytest.fixture(scope="module")
def local(folder: Path, predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Local:
    """The folder predicted in this process: the records, and where the masks are."""
    out = tmp_path_factory.mktemp("local")
    return predict_items(PredictJob(folder, out), LocalModel(predictor)).records, out


def opened(stack: StackState, protocol: str) -> PredictModel:
    return open_model(stack.gateway_url, protocol, stack.grpc_port)


def read_masks(out: Path) -> dict[str, bytes]:
    masks = out / "masks"
    return {str(path.relative_to(masks)): path.read_bytes() for path in masks.rglob("*") if path.is_file()}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_remote_answers_are_the_local_ones(
    protocol: str, stack: StackState, folder: Path, local: Local, tmp_path: Path
) -> None:
    expected, local_out = local
    summary = predict_items(PredictJob(folder, tmp_path), opened(stack, protocol))
    assert {one.item for one in summary.failed} == {"broken.png", "empty.png"}
    for remote, here in zip(summary.records, expected, strict=True):
        assert (remote.item, remote.status, remote.error) == (here.item, here.status, here.error)
        assert remote.model.digest == here.model.digest
        if remote.figures is None or here.figures is None:
            continue
        assert remote.figures.tumor_probability == pytest.approx(here.figures.tumor_probability, abs=1e-5)
        assert remote.figures.regions == here.figures.regions
        assert remote.figures.measures == here.figures.measures
        assert remote.figures.modalities == here.figures.modalities
        assert remote.figures.decision == here.figures.decision
        assert len(remote.figures.slices) == len(here.figures.slices)
    masks = read_masks(tmp_path)
    assert masks == read_masks(local_out)
    assert len(masks) == len(expected) - 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_explain_over_a_url(
    protocol: str, stack: StackState, folder: Path, predictor: Predictor, tmp_path: Path
) -> None:
    for given in (folder / "photo.jpg", folder / "patient_flair.nii.gz"):
        remote = explain_file(ExplainJob(given, tmp_path / "why.png", "hirescam"), opened(stack, protocol))
        here = explain_file(ExplainJob(given, tmp_path / "here.png", "hirescam"), LocalModel(predictor))
        assert remote.slice_index == here.slice_index
        assert remote.prediction.gradcam is not None
        assert here.prediction.gradcam is not None
        np.testing.assert_allclose(remote.prediction.gradcam, here.prediction.gradcam, atol=1.01 / 255)


def test_uncertainty_over_v2_and_not_over_rest(stack: StackState, folder: Path, tmp_path: Path) -> None:
    options = PredictOptions(("classify", "uncertainty"), n_mc_samples=2)
    job = PredictJob(folder / "photo.jpg", tmp_path, options)
    (record,) = predict_items(job, opened(stack, "v2-grpc")).records
    assert record.figures is not None
    assert record.figures.mean_uncertainty is not None
    assert record.figures.mean_uncertainty > 0
    with pytest.raises(UsageError, match="uncertainty does not come over rest"):
        predict_items(job, opened(stack, "rest"))


def test_no_server_there(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be reached"):
        open_model("http://127.0.0.1:9", "v2-http", 9)
    with pytest.raises(UsageError, match="no address"):
        open_model("localhost", "v2-http", 9)


def test_server_goes_away_and_another_of_the_same_model_takes_over(
    stack: StackState, bundle_dir: Path, head: NDArray[np.uint8], encoded: Encode, tmp_path: Path
) -> None:
    folder, work = tmp_path / "scans", tmp_path / "work"
    folder.mkdir()
    for index in range(24):
        (folder / f"{index:03d}.png").write_bytes(encoded(np.roll(head, index, axis=0)))
    first = start_detached(bundle_dir, None, ServeConfig(backend="inprocess"), work, os.getpid(), 120)

    def stop_once(done: int, _: int, __: str) -> None:
        if done == 8:
            stop_stack(first)

    job = PredictJob(folder, tmp_path / "out")
    try:
        model = opened(first, "v2-http")
        with pytest.raises(BackendError, match="cannot be reached"):
            predict_items(job, model, stop_once)
    finally:
        stop_stack(first)
    assert len(finished(job.out)) == 8
    summary = predict_items(job, opened(stack, "v2-http"))
    assert (summary.resumed, len(summary.records), summary.failed) == (8, 24, ())


def finished(out: Path) -> list[str]:
    """Keys of the items in the journal, a half line left out."""
    path = out / JOURNAL
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line)["key"] for line in lines]


@pytest.mark.parametrize("where", ["bundle", "url"])
def test_killed_and_run_again_nothing_is_done_twice(
    where: str, stack: StackState, bundle_dir: Path, head: NDArray[np.uint8], encoded: Encode, tmp_path: Path
) -> None:
    folder, out = tmp_path / "scans", tmp_path / "out"
    folder.mkdir()
    n_items = 64
    for index in range(n_items):
        (folder / f"{index:03d}.png").write_bytes(encoded(np.roll(head, index, axis=0)))
    model = ["--url", stack.gateway_url] if where == "url" else ["--bundle", str(bundle_dir), "--device", "cpu"]
    command = [sys.executable, "-m", "slicewise.cli", "predict", str(folder), "--out", str(out), "--json", *model]

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(finished(out)) < 8 and time.monotonic() < until and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = finished(out)
    assert 8 <= len(before) < n_items, "killed in the middle"
    masks = {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    assert not (out / "predictions.json").exists()

    told = subprocess.run(command, capture_output=True, text=True, check=True)
    summary = json.loads(told.stdout)
    assert (summary["items"], summary["done"], summary["resumed"]) == (n_items, n_items, len(before))
    after = finished(out)
    assert after[: len(before)] == before
    assert len(after) == len(set(after)) == n_items
    done = {out / json.loads(line)["mask"] for line in (out / JOURNAL).read_bytes().splitlines()[: len(before)]}
    assert all(path.stat().st_mtime_ns == masks[path] for path in done)
    assert len(json.loads((out / "predictions.json").read_text())["items"]) == n_items
