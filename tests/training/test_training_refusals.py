"""What a stage does when there is nothing to learn, or when what it finds is not its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_run import MODEL, SEED, SmallData, train_config

from slicewise.errors import TrainingError
from slicewise.files import write_json
from slicewise.slices.store import INDEX
from slicewise.training.checkpoint import BEST, LAST
from slicewise.training.stage import StageJob, monitor_score, train_stage


def store_with(small: SmallData, folder: Path, **study: Any) -> Path:
    """A copy of the store's index with every study changed; the arrays are linked."""
    index = small.store.index
    studies = tuple(entry.model_copy(update=study) for entry in index.studies)
    shutil.copytree(small.store.folder, folder, symlinks=True)
    write_json(folder / INDEX, index.model_copy(update={"studies": studies}).model_dump(mode="json"))
    return folder


def job(small: SmallData, store: Path, stage: Any, checkpoints: Path, **train: Any) -> StageJob:
    return StageJob(stage, MODEL, train_config(**train), SEED, store, small.folder / "split", None, checkpoints)


def relabel(folder: Path, tumour: bool | None) -> None:
    """Give all slices one class."""
    index = json.loads((folder / INDEX).read_text())
    for study in index["studies"]:
        study["slices"]["tumour"] = [tumour] * len(study["slices"]["z"])
    (folder / INDEX).write_text(json.dumps(index))


def test_without_masks_the_warm_up_is_skipped_with_a_reason(small: SmallData, tmp_path: Path) -> None:
    """The stage still hands weights on, so that the next one can start."""
    store = store_with(small, tmp_path / "store", label_xxh3=None, known_regions=())
    record = train_stage(job(small, store, "seg_warmup", tmp_path / "c"), tmp_path / "out")
    assert record["skipped"] == "no training study has a mask"
    assert record["history"] == []
    assert json.loads((tmp_path / "out" / "stage.json").read_text()) == record
    after = train_stage(
        StageJob(
            "cls_head", MODEL, train_config(), SEED, store, small.folder / "split", tmp_path / "out", tmp_path / "d"
        ),
        tmp_path / "head",
    )
    assert after["skipped"] == ""
    assert after["before"][0]["skipped"] == record["skipped"]
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("out", "head"))
    assert {name.split(".")[0] for name in one if not torch.equal(one[name], two[name])} == {"head"}


def test_with_one_class_the_head_is_skipped(small: SmallData, tmp_path: Path) -> None:
    store = store_with(small, tmp_path / "store")
    relabel(store, True)
    record = train_stage(job(small, store, "cls_head", tmp_path / "c"), tmp_path / "out")
    assert record["skipped"] == "all training slices are of one class"


@pytest.mark.parametrize("stage", ["seg_warmup", "cls_head", "joint"])
def test_nothing_to_learn(small: SmallData, tmp_path: Path, stage: Any) -> None:
    store = store_with(small, tmp_path / "store", label_xxh3=None, known_regions=())
    relabel(store, True)
    with pytest.raises(TrainingError, match="nothing to learn.*all of one class") as caught:
        train_stage(job(small, store, stage, tmp_path / "c"), tmp_path / "out")
    assert "add a source with masks" in caught.value.cure
    assert not (tmp_path / "out").exists()


def test_a_side_without_slices(small: SmallData, tmp_path: Path) -> None:
    store = store_with(small, tmp_path / "store")
    index = json.loads((store / INDEX).read_text())
    for study in index["studies"]:
        study["slices"]["selected"] = [study["key"] not in small.split.val] * len(study["slices"]["z"])
    (store / INDEX).write_text(json.dumps(index))
    with pytest.raises(TrainingError, match="no slices"):
        train_stage(job(small, store, "joint", tmp_path / "c"), tmp_path / "out")


@pytest.fixture(scope="module")
def finished(small: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a finished warm-up."""
    folder = tmp_path_factory.mktemp("finished")
    train_stage(small.job("seg_warmup", folder / "checkpoints"), folder / "out")
    return folder


@pytest.fixture
def checkpoints(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints"))


def test_a_finished_stage_trains_no_more(small: SmallData, finished: Path, checkpoints: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    again = train_stage(small.job("seg_warmup", checkpoints), tmp_path / "out", lambda done, *_: steps.append(done))
    assert not steps
    first = json.loads((finished / "out" / "stage.json").read_text())
    # The provenance tells the time, too; the step losses lie with the trackers, which were not copied.
    when = {"seconds": 0, "provenance": None, "step_losses": []}
    assert {**again, **when} == {**first, **when}
    one, two = (load_file(folder / "out" / "weights.safetensors") for folder in (finished, tmp_path))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    "train",
    [
        {"batch_size": 4},
        {"lambda_seg": 2.0},
        {"seg_warmup": {"epochs": 2, "tasks": ["segment"], "monitor": "dice"}},
        {"augment": {"flip": 0.1}},
    ],
)
def test_checkpoints_of_another_configuration_are_refused(
    small: SmallData, checkpoints: Path, tmp_path: Path, train: dict[str, Any]
) -> None:
    with pytest.raises(TrainingError, match="another configuration or data set") as caught:
        train_stage(small.job("seg_warmup", checkpoints, **train), tmp_path / "out")
    assert str(checkpoints / LAST) in caught.value.cure


def test_checkpoints_of_another_selection_are_refused(small: SmallData, checkpoints: Path, tmp_path: Path) -> None:
    """Preprocessing again with other ``train_slices`` leaves the images alone and changes what is learnt from."""
    store = store_with(small, tmp_path / "store")
    index = json.loads((store / INDEX).read_text())
    for study in index["studies"]:
        study["slices"]["selected"] = [not chosen for chosen in study["slices"]["selected"]]
    (store / INDEX).write_text(json.dumps(index))
    with pytest.raises(TrainingError, match="another configuration or data set"):
        train_stage(job(small, store, "seg_warmup", checkpoints), tmp_path / "out")


@pytest.mark.parametrize("size", [0, 4, 100, 10_000])
def test_a_cut_checkpoint_is_named_with_its_cure(
    small: SmallData, checkpoints: Path, tmp_path: Path, size: int
) -> None:
    path = checkpoints / LAST
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(TrainingError, match="is damaged") as caught:
        train_stage(small.job("seg_warmup", checkpoints), tmp_path / "out")
    assert caught.value.cure == f"delete {path} to train this stage from its start"
    path.unlink()
    assert train_stage(small.job("seg_warmup", checkpoints), tmp_path / "out")["best_epoch"] == 1


@pytest.mark.parametrize("size", [None, 100])
def test_a_best_checkpoint_that_is_gone_or_cut_is_named(
    small: SmallData, checkpoints: Path, tmp_path: Path, size: int | None
) -> None:
    path = checkpoints / BEST
    content = path.read_bytes()
    path.unlink()
    if size is not None:
        path.write_bytes(content[:size])
    with pytest.raises(TrainingError, match=BEST):
        train_stage(small.job("seg_warmup", checkpoints), tmp_path / "out")


def test_a_missing_stage_before_is_named(small: SmallData, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nowhere"):
        train_stage(small.job("joint", tmp_path / "c", tmp_path / "nowhere"), tmp_path / "out")


@pytest.mark.parametrize(
    ("monitor", "dice", "auc", "score"),
    [
        ("dice", 0.5, 0.9, 0.5),
        ("auc", 0.5, 0.9, 0.9),
        ("combined", 0.5, 0.9, 0.7),
        ("combined", None, 0.9, 0.9),
        ("dice", None, 0.9, -1.5),
        ("combined", None, None, -1.5),
        ("loss", 0.5, 0.9, -1.5),
        ("last", 0.5, 0.9, 3.0),
    ],
)
def test_which_figure_decides(monitor: str, dice: float | None, auc: float | None, score: float) -> None:
    figures = {"epoch": 3, "val_dice": dice, "val_auc": auc, "val_loss": 1.5}
    assert monitor_score(monitor, figures) == pytest.approx(score)
