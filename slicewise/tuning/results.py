"""What a search leaves for people: its trials, its best settings, and which settings mattered."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from slicewise.config import Config
from slicewise.files import atomic_path, write_json, write_text
from slicewise.tuning.attempts import INTERRUPTED, PLACE, REASON, SECONDS, START, best_of, ended
from slicewise.tuning.job import TuneJob
from slicewise.tuning.study import as_values

BEST, TRIALS, TABLE = "best.yaml", "trials.json", "trials.csv"
# With fewer finished trials, importances are mostly chance.
TELLING = 10
COLUMNS = ("number", "folder", "state", "score", "epochs", "seconds", "reason")
STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def trial_folder(out: Path, place: int) -> Path:
    """Where a trial lies."""
    return out / "trials" / f"{place:04d}"


def write_results(study: optuna.Study, job: TuneJob, base: Config, out: Path) -> dict[str, Any]:
    """Write ``trials.json``, ``trials.csv`` and, once a trial has finished, ``best.yaml``; returns the first."""
    rows = [_row(job, trial) for trial in study.get_trials(deepcopy=False)]
    best = best_of(study)
    counts = {state: sum(row["state"] == state for row in rows) for state in (*STATES.values(), "interrupted")}
    result = {
        "monitor": base.train.stage(job.tune.stages[-1]).monitor,
        "side": "val",
        "mode": job.mode,
        "stages": list(job.tune.stages),
        "sampler": job.tune.sampler,
        "pruner": job.tune.pruner,
        "seed": base.seed,
        "starts_from_configuration": bool(study.user_attrs.get(START)),
        "ended": len(ended(study)),
        "counts": counts,
        "best": None if best is None else _row(job, best),
        "importance": importance(study, base.seed),
        "trials": rows,
    }
    write_json(out / TRIALS, result)
    _write_table(out / TABLE, list(job.tune.space), rows)
    if best is not None:
        write_text(out / BEST, _heading(job, result) + _yaml(job.layers(as_values(job.tune, best.params))))
    return result


def importance(study: optuna.Study, seed: int) -> dict[str, float]:
    """Each parameter's share in the variance of the scores (fANOVA); empty where that cannot be told.

    Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014.
    """
    scores = [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    if len(scores) < TELLING or len(set(scores)) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: round(float(share), 4) for key, share in shares.items()}


def _row(job: TuneJob, trial: FrozenTrial) -> dict[str, Any]:
    attributes = trial.user_attrs
    reached = list(trial.intermediate_values.values())
    return {
        "number": trial.number,
        "folder": f"{attributes[PLACE]:04d}" if PLACE in attributes else None,
        "state": "interrupted" if INTERRUPTED in attributes else STATES[trial.state],
        # A pruned trial's is that of its best epoch so far.
        "score": trial.value if trial.state == TrialState.COMPLETE else max(reached, default=None),
        "epochs": len(reached),
        "seconds": attributes.get(SECONDS),
        "reason": attributes.get(REASON, ""),
        "params": as_values(job.tune, trial.params or trial.system_attrs.get("fixed_params", {})),
    }


def _write_table(path: Path, keys: list[str], rows: list[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow([*COLUMNS, *keys])
        for row in rows:
            values = [row["params"].get(key) for key in keys]
            texts = [json.dumps(value) if isinstance(value, list | dict) else value for value in values]
            writer.writerow([*(row[name] for name in COLUMNS), *texts])


def _heading(job: TuneJob, result: dict[str, Any]) -> str:
    best, counts = result["best"], result["counts"]
    lines = [
        f"The best of {result['ended']} trials: {counts['finished']} finished, {counts['pruned']} pruned, "
        f"{counts['failed']} failed.",
        f"Validation score ({result['monitor']}): {best['score']:.4f}, trial {best['folder']}.",
        "The score is optimistic: it is the highest of many on the same validation studies. Only the test side,",
        "which the search never read, tells how good these settings are.",
        f"slicewise run --mode {job.mode} --config {BEST}",
    ]
    start = [row["score"] for row in result["trials"] if row["folder"] == "0000" and row["state"] == "finished"]
    if start and result["starts_from_configuration"]:
        lines.insert(2, f"What the search started from, trial 0000, scored {start[0]:.4f}.")
    return "".join(f"# {line}\n" for line in lines)


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
