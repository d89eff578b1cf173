"""``slicewise run``, as a user calls it: killed, resumed, refused by the gate, and given bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest
import yaml

SMALL = {
    "download": {"phantom": {"n_studies": 8, "shape": [48, 48, 16], "spacing_mm": [4.0, 4.0, 9.0]}},
    "preprocess": {"slice": {"size": 48}, "train_slices": 8, "min_tumour_pixels": 5, "workers": 1},
    "train": {
        "seg_warmup": {"epochs": 3, "min_steps": 0},
        "cls_head": {"epochs": 1, "min_steps": 0},
        "joint": {"epochs": 1, "min_steps": 0},
    },
    "evaluate": {"bootstrap": 100},
    "gate": {"min_roc_auc": 0.0, "min_dice_wt": 0.0, "max_ece": 1.0},
}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "slicewise.cli", *words]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def of_run(folder: Path) -> list[psutil.Process]:
    """Processes whose command line names the run's folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(process)
    return found


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, "the run ended early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.e2e
def test_killed_in_training_then_resumed_to_a_served_answer(small_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["run", "--out", str(folder), "--config", str(small_config), "--json"]
    process = subprocess.Popen(command(*words), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(folder / "checkpoints" / "seg_warmup" / "last.safetensors", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(of_run(folder), timeout=20)
    assert not of_run(folder), "a stage goes on after its run was killed"
    before = {
        name: (folder / "stages" / f"{name}.json").stat().st_mtime_ns for name in ("download", "preprocess", "split")
    }

    done = run("run", "--resume", "--out", str(folder), "--json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "goes on after epoch" in (folder / "pipeline.log").read_text()
    for name, stamp in before.items():
        assert (folder / "stages" / f"{name}.json").stat().st_mtime_ns == stamp, f"{name} was done again"
    assert 0 <= result["requests"]["classification"]["probability"] <= 1
    assert result["requests"]["segmentation"]["mask"] == "48×48"
    assert set(result["stages"]) >= {"train-joint", "calibrate", "evaluate", "gate", "package", "deploy"}
    for name in ("report.html", "metrics.json", "bundle/bundle.json", "bundle/model.safetensors"):
        assert (folder / name).is_file()
    assert not of_run(folder), "a server outlived the run"
    assert (folder / "summary.md").read_text().startswith("# SliceWise run done")
    assert "research use only" in done.stderr.lower()


@pytest.mark.e2e
def test_a_refused_model_is_not_deployed(small_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["run", "--out", str(folder), "--config", str(small_config), "--json"]
    done = run(*words, "--set", "gate.min_dice_wt=1.0", "--set", "train.seg_warmup.epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["gate"], result["deployed"]) == ("refused", False)
    assert "Dice of WT" in result["reasons"][0]
    assert "deploy" not in result["stages"]
    assert not (folder / "bundle").exists()
    assert "Traceback" not in done.stderr


def write_nifti(path: Path, shape: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).integers(100, 900, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)


def bad_studies(folder: Path, kind: str) -> None:
    for at in range(4):
        stem = folder / f"p{at}" / f"p{at}"
        write_nifti(stem.with_name(f"p{at}_flair.nii.gz"), (40, 40, 8))
        write_nifti(stem.with_name(f"p{at}_t1.nii.gz"), (40, 40, 3 if kind == "shapes" else 8))
        if kind == "truncated":
            path = stem.with_name(f"p{at}_t1.nii.gz")
            path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(("kind", "words"), [("truncated", "truncated"), ("shapes", "p0_t1.nii.gz covers 38%")])
def test_bad_studies_are_named_in_one_line(tmp_path: Path, kind: str, words: str) -> None:
    bad_studies(tmp_path / "scans", kind)
    done = run("run", "--source", "scans", "--out", "run", cwd=tmp_path)
    assert done.returncode == 1
    error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert "p0" in error[0]
    assert words in error[0]
    assert "Traceback" not in done.stderr
    summary = (tmp_path / "run" / "summary.md").read_text()
    assert summary.startswith("# SliceWise run failed")
    assert f"failed**: {error[0].split(': ', 2)[2]}"[:80] in summary


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "--mode", "smoky"], 2, "did you mean 'smoke'"),
        (["run", "--set", "train.batchsize=3"], 2, "did you mean 'batch_size'"),
        (["run", "--runner", "argo"], 2, "unknown runner"),
        (["run", "--resume"], 2, "no unfinished run"),
        (["compile", "-o", "x.json"], 2, "end it in .yaml"),
        (["preprocess", "--dataset", "nowhere", "--out", "store"], 1, "nowhere"),
        (["split", "--store", "nowhere", "--out", "split"], 1, "is not a slice store"),
        (["download", "--source", "empty", "--out", "dataset"], 1, "empty"),
        (["download", "--source", "absent", "--out", "dataset"], 1, "absent"),
        (["serve", "absent"], 1, "absent"),
        (["gate", "--evaluation", "nowhere"], 1, "run 'slicewise evaluate' first"),
        (["train", "--stage", "x", "--store", "s", "--split", "s", "--out", "o"], 2, "unknown training stage"),
    ],
)
def test_wrong_calls_get_one_clear_line(tmp_path: Path, words: list[str], code: int, message: str) -> None:
    (tmp_path / "empty").mkdir()
    done = run(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert " — " in lines[0], "an error without a cure"
    assert "Traceback" not in done.stderr + done.stdout


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("split", "--store", "nowhere", "--out", "split", "--debug", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_doctor_tells_what_is_there(tmp_path: Path) -> None:
    done = run("doctor", "--json", cwd=tmp_path)
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["Java"]["ok"]
    assert done.returncode == 0
