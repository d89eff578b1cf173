"""Tables of the studies on BraTS and LGG, from the results that ``run_arms.py`` has left.

    python benchmarks/studies/summarise.py STUDY --work FOLDER       STUDY: lgg, brats, sharing or subsets

Trains nothing. Folds that are missing are missing in the table too, which says how many patients it rests on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures import RESAMPLES, classification_figures, mean_over_patients, pooled, save_table
from recipes import ARMS, FOLDS, MODEL, SEED, SIZE, SLICES

from slicewise.config import ModelConfig
from slicewise.files import read_json
from slicewise.model.summary import summary

Results = dict[str, list[dict[str, Any]]]


def load(work: Path) -> Results:
    """Arm → its folds' results."""
    paths = {arm: [work / "results" / f"{arm}-{fold}.json" for fold in range(FOLDS)] for arm in ARMS}
    return {arm: [dict(read_json(path)) for path in found if path.exists()] for arm, found in paths.items()}


def is_brats(study: str) -> bool:
    return study.lower().startswith("brats")


def is_lgg(study: str) -> bool:
    return not is_brats(study)


def dice_table(results: list[dict[str, Any]], part: str, keep: Callable[[str], bool]) -> dict[str, Any]:
    """Mean Dice over patients per region and over slices with tumour, each with n and interval; and every patient."""
    found = pooled(results, part, keep)
    means = {region: mean_over_patients(values) for region, values in found.items() if values}
    patients = {study: round(values[0], 4) for study, values in sorted(found["WT"].items())}
    return {**means, "patients_wt": patients}


def lgg(results: Results) -> dict[str, Any]:
    """Segmentation of the FLAIR abnormality; LGG's masks know no other region."""
    arms = {arm: results[arm] for arm in ("both", "lgg") if results[arm]}
    return {
        arm: {part: only(dice_table(found, part, is_lgg), "WT", "slices", "patients_wt") for part in ("all", "flair")}
        for arm, found in arms.items()
    }


def only(table: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: table[name] for name in names}


def brats(results: Results) -> dict[str, Any]:
    """Both sources against BraTS alone; the second pair is on the folds that both have."""
    folds = {result["fold"] for result in results["brats"]}
    same = [result for result in results["both"] if result["fold"] in folds]
    arms = {"both": results["both"], "both, folds of brats": same, "brats": results["brats"]}
    return {
        arm: {part: dice_table(found, part, is_brats) for part in ("all", "flair")}
        for arm, found in arms.items()
        if found
    }


def sharing(results: Results) -> dict[str, Any]:
    """Two tasks in one network against one network a task, on the folds that all arms trained so far have."""
    arms = [arm for arm in ("both", "segment", "classify") if results[arm]]
    folds = set.intersection(*({result["fold"] for result in results[arm]} for arm in arms))
    chosen = {arm: [result for result in results[arm] if result["fold"] in folds] for arm in results}
    table: dict[str, Any] = {"folds": sorted(folds), "size": sizes()}
    for arm in arms:
        table[arm] = {"seconds": round(sum(result["seconds"] for result in chosen[arm]))}
        if arm != "classify":
            table[arm]["dice"] = {
                name: dice_table(chosen[arm], "all", keep) for name, keep in (("lgg", is_lgg), ("brats", is_brats))
            }
        if arm != "segment":
            table[arm]["classification"] = slices(chosen[arm])
    table["joint_against_warmup"] = against_warmup(results["both"], results["both"])
    if results["gentle"]:
        table["gentle_against_warmup"] = against_warmup(results["both"], results["gentle"])
    return table


def against_warmup(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """Per source: WT Dice after the warm-up and after the joint stage, and the difference paired by patient."""
    table = {}
    for name, keep in (("lgg", is_lgg), ("brats", is_brats)):
        warm, joint = pooled(before, "warmup", keep)["WT"], pooled(after, "all", keep)["WT"]
        gains = {study: [joint[study][0] - warm[study][0]] for study in joint}
        table[name] = {"warmup": mean_over_patients(warm), "all": mean_over_patients(joint)}
        table[name]["difference"] = mean_over_patients(gains)
    return table


def slices(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures over slices; patients are resampled."""
    rows = [
        (r["all"]["studies"][int(study)], logit, truth) for r in results for study, logit, truth in r["all"]["logits"]
    ]
    studies, logits, truth = zip(*rows, strict=True)
    return classification_figures(np.array(logits), np.array(truth), list(studies))


def sizes() -> dict[str, Any]:
    """Parameters and multiply-accumulates of one slice: two networks have two encoders."""
    parts = summary(ModelConfig.model_validate(MODEL), 4, (SIZE, SIZE))
    one = {"parameters": parts["total"].parameters, "macs": parts["total"].macs}
    more = {"parameters": parts["encoder"].parameters, "macs": parts["encoder"].macs}
    return {"two tasks": one, "two networks": {name: one[name] + more[name] for name in one}}


def subsets(results: Results) -> dict[str, Any]:
    """WT Dice of BraTS patients for each subset of the modalities, from one model a fold."""
    names = list(results["both"][0]["subsets"])
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for result in results["both"]:
        for name in names:
            found[name] |= pooled([{"part": result["subsets"][name]}], "part", is_brats)["WT"]
    return {name: mean_over_patients(values) for name, values in found.items()}


STUDIES = {"lgg": lgg, "brats": brats, "sharing": sharing, "subsets": subsets}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    results = load(options.work)
    made = {
        "seed": SEED,
        "image_size": SIZE,
        "slices_per_study": SLICES,
        "preset": MODEL.preset,
        "bootstrap": RESAMPLES,
        "precision": sorted({result["precision"] for found in results.values() for result in found}),
        "seconds": {arm: [round(result["seconds"]) for result in found] for arm, found in results.items()},
        "splits": {str(result["fold"]): result["split"] for result in results["both"]},
    }
    save_table(options.study, {**made, "table": STUDIES[options.study](results)})


if __name__ == "__main__":
    main()
