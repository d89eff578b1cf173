"""Searches on phantoms: real Optuna, real trainings of one or two epochs."""

from __future__ import annotations

import contextlib
import csv
import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages.journal import JournalFileBackend
from small_run import SmallData
from typer.testing import CliRunner

from slicewise.cli import build_app
from slicewise.config import load_config
from slicewise.config.tune import Range, check_space, load_tune, takes_whole_numbers
from slicewise.errors import ConfigError, RunLockedError, StoreError, TrainingError, UsageError
from slicewise.tuning.attempts import PLACE, begin, begin_with, ended, take_up
from slicewise.tuning.results import importance
from slicewise.tuning.search import TuneJob, tune_stage
from slicewise.tuning.study import JOURNAL, locked, open_study
from slicewise.tuning.trial import saved_epochs, score_of

LR = "train.seg_warmup.lr"
SPACE = {
    LR: {"low": 1e-4, "high": 1e-2, "log": True},
    "model.dropout": {"low": 0, "high": 0.4},
    "train.loss.region_weights": {"choices": [[1, 1, 1], [1, 2, 2]]},
    "train.augment.preset": {"choices": ["none", "minimal", "aggressive"]},
}
SHORT = ("train.seg_warmup.min_steps=0", "train.batch_size=8", "train.checkpoint_steps=2", "train.checkpoint_share=1")
FORKS = multiprocessing.get_context("forkserver")
# Imported once, not by every process that is killed: with what the first training imports.
FORKS.set_forkserver_preload(["slicewise.tuning.loop", "monai.losses", "torch._dynamo"])


def job(small: SmallData, *sets: str, epochs: int = 1, **tune: Any) -> TuneJob:
    changes = {"space": SPACE, "stages": ["seg_warmup"], "trials": 3, **tune}
    words = (*SHORT, f"train.seg_warmup.epochs={epochs}", *sets)
    return TuneJob(load_tune(changes=changes), "smoke", None, words, small.store.folder, small.folder / "split")


def outcome(result: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What each trial was and became, without times and without what was interrupted."""
    rows = [row for row in result["trials"] if row["state"] != "interrupted"]
    return [(row["folder"], row["state"], row["score"], row["params"]) for row in rows]


@pytest.fixture(scope="module")
def whole(small: SmallData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A search of three trials that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "tune"
    return out, tune_stage(job(small), out)


def test_best_settings_are_a_configuration_file(whole: tuple[Path, dict[str, Any]]) -> None:
    out, result = whole
    best = max(result["trials"], key=lambda row: row["score"])
    assert result["best"] == best
    assert json.loads((out / "trials.json").read_text()) == result
    config = load_config("smoke", out / "best.yaml")
    trained = load_config("smoke", out / "trials" / best["folder"] / "config.yaml")
    assert (config.train, config.model) == (trained.train, trained.model)
    assert config.train.seg_warmup.lr == best["params"][LR]
    assert config.train.seg_warmup.epochs == 1  # what --set said belongs to it
    record = json.loads((out / "trials" / best["folder"] / "seg_warmup" / "stage.json").read_text())
    assert record["best_score"] == best["score"]


def test_best_file_says_how_far_to_trust_it(whole: tuple[Path, dict[str, Any]]) -> None:
    out, result = whole
    heading = [line for line in (out / "best.yaml").read_text().splitlines() if line.startswith("#")]
    text = " ".join(heading)
    assert f"{result['best']['score']:.4f}" in text
    assert f"What the search started from, trial 0000, scored {result['trials'][0]['score']:.4f}" in text
    for word in ("best of 3 trials", "Validation", "optimistic", "--mode smoke --config best.yaml"):
        assert word in text


def test_first_trial_is_the_configuration_itself(whole: tuple[Path, dict[str, Any]]) -> None:
    base = load_config("smoke")
    params = whole[1]["trials"][0]["params"]
    assert params[LR] == base.train.seg_warmup.lr
    assert params["model.dropout"] == base.model.dropout
    assert params["train.loss.region_weights"] == [1, 1, 1]
    assert params["train.augment.preset"] == "minimal"


def test_a_preset_brings_its_own_strengths(whole: tuple[Path, dict[str, Any]]) -> None:
    """Had the trial's file named every key of ``augment``, a preset would change nothing."""
    out, result = whole
    for row in result["trials"]:
        augment = load_config("smoke", out / "trials" / row["folder"] / "config.yaml").train.augment
        degrees = {"none": 0.0, "minimal": 12.0, "aggressive": 30.0}[row["params"]["train.augment.preset"]]
        assert augment.rotate_degrees == degrees


def test_table_and_disk(whole: tuple[Path, dict[str, Any]]) -> None:
    out, result = whole
    with (out / "trials.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["score"]) for row in rows] == [row["score"] for row in result["trials"]]
    assert [json.loads(row["train.loss.region_weights"]) for row in rows] == [
        row["params"]["train.loss.region_weights"] for row in result["trials"]
    ]
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert not list(out.rglob("checkpoints"))
    weights = [path.parts[-3] for path in out.rglob("weights.safetensors")]
    assert weights == [result["best"]["folder"]]


def test_same_seed_same_trials(small: SmallData, whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    assert outcome(tune_stage(job(small, trials=2), tmp_path)) == outcome(whole[1])[:2]


def dies(search: TuneJob, out: Path, event: tuple[str, str, int]) -> None:
    """Search in this process and kill it at the n-th audit event about a file."""
    torch.set_num_threads(1)
    left = [event[2]]

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name == event[0] and event[1] in str(args):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    tune_stage(search, out)


def killed(search: TuneJob, out: Path, event: tuple[str, str, int]) -> None:
    child = FORKS.Process(target=dies, args=(search, out, event))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def test_killed_again_and_again(small: SmallData, whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """In an epoch, in the middle of an entry, and between an entry and the tables: the same trials come out."""
    search = job(small)
    killed(search, tmp_path, ("os.rename", "last.safetensors", 2))  # within trial 0
    with (tmp_path / JOURNAL).open("a") as handle:
        handle.write('{"op_code": 8, "worker')
    killed(search, tmp_path, ("os.rename", "best.yaml", 2))  # trial 0 goes on, trial 1 is trained and told
    before = json.loads((tmp_path / "trials.json").read_text())
    assert outcome(before) == outcome(whole[1])[:2]
    result = tune_stage(search, tmp_path)
    assert outcome(result) == outcome(whole[1])
    assert result["counts"]["interrupted"] == 1
    assert {row["folder"] for row in result["trials"]} == {"0000", "0001", "0002"}
    assert outcome(tune_stage(search, tmp_path)) == outcome(whole[1])  # nothing is left to do


def test_killed_while_trials_fail(small: SmallData, tmp_path: Path) -> None:
    space = {"train.nesterov": {"choices": [True]}, "model.dropout": {"low": 0.0, "high": 0.5}}
    search = job(small, space=space, trials=3)
    killed(search, tmp_path / "cut", ("open", f"{JOURNAL}', 'a'", 13))
    for out in (tmp_path / "cut", tmp_path / "whole"):
        with pytest.raises(TrainingError, match=r"all of 3 trials failed.*nesterov"):
            tune_stage(search, out)
    results = [json.loads((tmp_path / name / "trials.json").read_text()) for name in ("cut", "whole")]
    assert outcome(results[0]) == outcome(results[1])
    assert results[0]["counts"]["interrupted"] == 1


def test_bad_trials_are_pruned(small: SmallData, tmp_path: Path) -> None:
    """One of them after a kill between its epoch's checkpoint and the report: the pruner learns of that epoch."""
    space = {LR: {"choices": [5e-3, 1e-7]}}
    search = job(small, f"{LR}=5e-3", "seed=1", epochs=2, space=space, pruner_trials=1, pruner_epochs=0)
    killed(search, tmp_path, ("open", f"{JOURNAL}', 'a'", 15))
    last = (tmp_path / JOURNAL).read_text().splitlines()[-1]
    assert PLACE in last  # what comes next is the report
    assert saved_epochs(tmp_path / "trials" / "0001" / "seg_warmup")
    result = tune_stage(search, tmp_path)
    states = [(row["params"][LR], row["state"], row["epochs"]) for row in result["trials"]]
    assert states[:3] == [(5e-3, "finished", 2), (1e-7, "interrupted", 0), (1e-7, "pruned", 1)]
    assert result["best"]["params"] == {LR: 5e-3}


def test_a_trial_that_diverges_is_recorded_and_the_search_goes_on(small: SmallData, tmp_path: Path) -> None:
    search = job(
        small, f"{LR}=1e-3", "seed=1", space={LR: {"choices": [1e-3, 1e30]}}, sampler="random", pruner="none"
    )
    result = tune_stage(search, tmp_path)
    states = {(row["params"][LR], row["state"]) for row in result["trials"]}
    assert states == {(1e-3, "finished"), (1e30, "failed")}
    assert all(("the loss is" in row["reason"]) == (row["state"] == "failed") for row in result["trials"])


def test_settings_that_do_not_go_together_fail_by_name(small: SmallData, tmp_path: Path) -> None:
    space = {"train.nesterov": {"choices": [False, True]}}
    result = tune_stage(job(small, "seed=1", space=space, trials=2), tmp_path)
    failed = [row for row in result["trials"] if row["state"] == "failed"]
    assert failed
    assert all("nesterov needs optimiser sgd" in row["reason"] for row in failed)
    assert result["best"]["params"] == {"train.nesterov": False}


def test_the_test_side_is_never_read(small: SmallData, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(small.store.folder, store)
    for key in small.split.test:
        shutil.rmtree(store / "studies" / key)
    search = job(small, trials=1)
    moved = TuneJob(search.tune, search.mode, search.file, search.overrides, store, search.split)
    assert tune_stage(moved, tmp_path / "tune")["counts"]["finished"] == 1
    for key in small.split.val:
        shutil.rmtree(store / "studies" / key)
    with pytest.raises(StoreError):
        tune_stage(moved, tmp_path / "other")


def test_out_of_time_is_taken_up_by_the_next_call(small: SmallData, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no trial of .* has finished yet"):
        tune_stage(job(small, trials=1, timeout_minutes=0.001), tmp_path)
    result = tune_stage(job(small, trials=1), tmp_path)
    assert [row["folder"] for row in result["trials"] if row["state"] == "finished"] == ["0000"]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"train.seg_warmup.lrr": {"low": 1, "high": 2}}, ["'train.seg_warmup.lrr'", f"did you mean '{LR}'"]),
        ({"trian.lr": {"low": 1, "high": 2}}, ["unknown key 'trian.lr'"]),
        ({"train.loss": {"choices": ["dice"]}}, ["unknown key 'train.loss'", "train.loss.segmentation"]),
        ({"preprocess.slice.size": {"choices": [64]}}, ["'preprocess.slice.size' is outside model and train"]),
        ({"seed": {"choices": [1, 2]}}, ["'seed' is outside model and train"]),
        ({"train.joint.lr": {"low": 1e-4, "high": 1e-3}}, ["no trial trains joint"]),
        ({"train.seg_warmup.monitor": {"choices": ["dice"]}}, ["change what a score means"]),
        ({"model.dropout": {"low": 0, "high": 1.5}}, ["model.dropout", "less than 1", "1.5"]),
        ({"model.preset": {"choices": ["small", "smal"]}}, ["model.preset", "'smal'"]),
        ({"train.batch_size": {"low": 1.5, "high": 4}}, ["train.batch_size", "1.5"]),
        ({LR: {"low": 2.0, "high": 1.0}}, [LR, "low must be below high"]),
        ({LR: {"low": 0.0, "high": 1.0, "log": True}}, [LR, "log needs low above 0"]),
        ({LR: {"low": 1.0}}, [f"{LR}.range.high", "required"]),
        ({LR: {"choices": []}}, [f"{LR}.choices"]),
        ({LR: {"choices": [1.0, 1.0]}}, ["named twice"]),
        ({}, ["space"]),
    ],
)
def test_a_wrong_space_is_refused_by_name(space: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_space(load_tune(changes={"space": space, "stages": ["seg_warmup"]}), load_config("smoke"))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("mode", ["smoke", "quick", "baseline", "production"])
def test_the_space_that_comes_with_slicewise_fits_every_mode(mode: str) -> None:
    check_space(load_tune(), load_config(mode))


def test_whole_numbers_where_a_key_takes_no_others() -> None:
    config = load_config("smoke")
    assert takes_whole_numbers(config, "train.batch_size", Range(low=4, high=16))
    assert takes_whole_numbers(config, "train.joint.epochs", Range(low=1, high=2))
    assert not takes_whole_numbers(config, "train.lambda_cls", Range(low=0, high=1))
    assert not takes_whole_numbers(config, "model.dropout", Range(low=0.1, high=0.5))


def test_a_folder_holds_one_search(small: SmallData, whole: tuple[Path, dict[str, Any]]) -> None:
    out, _ = whole
    with pytest.raises(UsageError, match="differs in the search's 'space', 'train'"):
        tune_stage(job(small, "train.lambda_seg=2", space={LR: {"low": 1e-4, "high": 1e-2}}), out)
    with locked(out), pytest.raises(RunLockedError, match="another search"):
        tune_stage(job(small), out)


def test_a_file_in_the_place_of_the_folder_is_named(small: SmallData, tmp_path: Path) -> None:
    (tmp_path / "tune").touch()
    with pytest.raises(TrainingError, match="tune cannot be written"):
        tune_stage(job(small), tmp_path / "tune")


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("no JSON\n{}\n")
    with pytest.raises(TrainingError, match=f"{JOURNAL} is damaged"):
        open_study(tmp_path, {})


def test_without_optuna_the_extra_is_named(small: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(TrainingError, match=r"slicewise\[tune\]"):
        tune_stage(job(small), tmp_path)


class Killed(BaseException):
    """Stands for SIGKILL where hundreds of processes would take too long."""


@pytest.fixture
def entries_left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One number: before that many-th entry of the journal the search dies; 0 is never."""
    append, left = JournalFileBackend.append_logs, [0]

    def dies_at_last(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        left[0] -= 1
        if not left[0]:
            raise Killed
        append(self, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", dies_at_last)
    return left


def made_search(folder: Path, trials: int, seed: int = 0) -> list[tuple[int, dict[str, Any]]]:
    """The places and parameters of trials on a made-up score; what is in ``folder`` is gone on with."""
    folder.mkdir(exist_ok=True)
    tune = load_tune(changes={"space": {LR: {"low": 0.1, "high": 1.0}}})
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    study = open_study(folder, {"of": "a test"})
    begin_with(study, {"x": 0.5, "y": 0.5}, space)
    take_up(study, space)
    while len(ended(study)) < trials:
        trial = begin(study, tune, seed, space)
        study.tell(trial, -((trial.params["x"] - 0.3) ** 2) - trial.params["y"])
    return [(trial.user_attrs[PLACE], trial.params) for trial in ended(study)]


def test_killed_at_every_single_entry_of_the_journal(tmp_path: Path, entries_left: list[int]) -> None:
    """Twice: the second kill hits what the first left to be put right."""
    expected = made_search(tmp_path / "whole", 4)
    assert [place for place, _ in expected] == [0, 1, 2, 3]
    entries = len((tmp_path / "whole" / JOURNAL).read_text().splitlines())
    for first in range(1, entries + 1):
        for entry in (first, 1 + first % 5):
            entries_left[0] = entry
            with contextlib.suppress(Killed):
                made_search(tmp_path / str(first), 4)
        entries_left[0] = 0
        assert made_search(tmp_path / str(first), 4) == expected


def test_interruptions_do_not_change_what_tpe_draws(tmp_path: Path, entries_left: list[int]) -> None:
    """TPE learns from the eleventh trial on."""
    expected = made_search(tmp_path / "whole", 20)
    assert len({str(params) for _, params in expected}) == 20
    for entry in (35, 27, 22, 31):
        entries_left[0] = entry
        with pytest.raises(Killed):
            made_search(tmp_path / "cut", 20)
    entries_left[0] = 0
    assert made_search(tmp_path / "cut", 20) == expected
    other = made_search(tmp_path / "other", 20, seed=1)
    assert not {str(params) for _, params in other[1:]} & {str(params) for _, params in expected}


def test_importance_is_told_only_where_it_can_be() -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    space = {"matters": FloatDistribution(0, 1), "does_not": FloatDistribution(0, 1)}
    for _ in range(9):
        trial = study.ask(space)
        study.tell(trial, trial.params["matters"])
    assert importance(study, 0) == {}
    for _ in range(21):
        trial = study.ask(space)
        study.tell(trial, trial.params["matters"])
    found = importance(study, 0)
    assert found["matters"] > 0.9
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"skipped": "all training slices are of one class"}, "nothing to judge: all training slices"),
        ({"history": [{"val_dice": 0.5, "val_auc": None}]}, "no auc to judge cls_head by"),
        ({"monitor": "loss", "history": [{"val_dice": 0.5, "val_auc": 0.9}]}, "compared by the monitor 'loss'"),
    ],
)
def test_a_score_that_cannot_be_compared_ends_the_search(record: dict[str, Any], words: str) -> None:
    base = {"stage": "cls_head", "skipped": "", "monitor": "auc", "best_epoch": 1, "best_score": -0.3}
    with pytest.raises(TrainingError, match=words):
        score_of({**base, **record})


def test_the_verb(small: SmallData, tmp_path: Path) -> None:
    """All three stages, a space of one's own, a configuration file below it."""
    space, config = tmp_path / "space.yaml", tmp_path / "mine.yaml"
    space.write_text(yaml.safe_dump({"space": {"train.joint.lr": {"low": 1e-4, "high": 1e-2, "log": True}}}))
    stages = {stage: {"epochs": 1, "min_steps": 0} for stage in ("seg_warmup", "cls_head", "joint")}
    config.write_text(yaml.safe_dump({"train": {**stages, "batch_size": 16}}))
    words = ["tune", "--store", small.store.folder, "--split", small.folder / "split", "--out", tmp_path / "tune"]
    words += ["--space", space, "--config", config, "--trials", 1, "--json"]
    done = CliRunner().invoke(build_app(), [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert result["monitor"] == "combined"
    assert result["counts"]["finished"] == 1
    best = load_config("smoke", Path(result["best_config"]))
    assert (best.train.batch_size, best.train.joint.lr) == (16, result["best"]["params"]["train.joint.lr"])
    made = tmp_path / "tune" / "trials" / "0000"
    assert [(made / stage / "stage.json").is_file() for stage in stages] == [True] * 3


def test_the_verb_has_an_example() -> None:
    done = CliRunner().invoke(build_app(), ["tune", "--help"])
    assert "Example: slicewise tune" in done.stdout
