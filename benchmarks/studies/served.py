"""Masks as they are served: in the scans' own voxels, with the post-processing that validation patients choose.

    python benchmarks/studies/served.py --work WORK

``WORK`` is where ``run_arms.py both`` has trained. Trains nothing. In each fold the post-processing is chosen on the
validation patients with all modalities, as ``slicewise calibrate`` does, and the test patients are judged with it and
without. Written into ``benchmarks/results/studies/served.json``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from arms import trained
from figures import mean_over_patients, save_table
from recipes import MODEL, SEED, SIZE
from summarise import is_brats, is_lgg
from withheld import SHOWN, Shown

from slicewise.config import MODALITIES, REGIONS
from slicewise.evaluation.collector import StudyCollector
from slicewise.evaluation.outputs import group_names, load_network
from slicewise.evaluation.overlap import count_overlap
from slicewise.evaluation.study_volume import StudyOutputs, StudyVolume, restore_study
from slicewise.evaluation.tune_postprocess import PackedStudy, ValidationStudy, choose_postprocess
from slicewise.files import read_json
from slicewise.inference.calibration import Calibration
from slicewise.inference.postprocess import PostProcess
from slicewise.inference.restore import trained_mask
from slicewise.slices.split import load_split
from slicewise.slices.store import SliceStore
from slicewise.training.validate import infer

Dice = dict[str, dict[str, float]]


class Fold:
    """A fold's network and what it says of whole studies."""

    def __init__(self, store: SliceStore, home: Path) -> None:
        self.store, weights = store, home / "both" / "joint"
        self.split, self.groups = load_split(home / "split"), group_names(home / "split")
        self.network = load_network(store, weights, MODEL)
        self.trained = trained_mask(read_json(weights / "stage.json")["trained_regions"])

    def volumes(self, keys: Sequence[str], shown: Sequence[str], keep: Callable[[str, StudyVolume], None]) -> None:
        """Every study in its own voxels, one after the other."""
        calibration = Calibration()

        def restore(outputs: StudyOutputs) -> None:
            keep(outputs.key, restore_study(self.store, outputs, calibration, self.trained))

        collector, start = StudyCollector(keys, calibration, restore), 0
        for out in infer(self.network, Shown(self.store, keys, shown), 32, keep_features=True):
            collector(self.network, out, start)
            start += len(out.tumour)
        collector.finish()

    def choose(self) -> PostProcess:
        """What the validation patients say."""
        studies: list[PackedStudy] = []

        def keep(key: str, volume: StudyVolume) -> None:
            about = (volume.known, volume.spacing_mm, self.groups[key])
            studies.append(PackedStudy.of(ValidationStudy(volume.predicted, volume.reference, *about)))

        self.volumes(self.split.val, MODALITIES, keep)
        return choose_postprocess(studies)[0]

    def test(self, chosen: PostProcess, shown: Sequence[str]) -> dict[str, Dice]:
        """``plain`` and ``processed``: study → region → Dice, of the test patients."""
        found: dict[str, Dice] = {"plain": {}, "processed": {}}

        def keep(key: str, volume: StudyVolume) -> None:
            masks = {"plain": volume.predicted, "processed": chosen.apply(volume.predicted, volume.spacing_mm)}
            for name, mask in masks.items():
                found[name][key] = {
                    region: count_overlap(mask[at], volume.reference[at]).figures()["dice"]
                    for at, region in enumerate(REGIONS)
                    if volume.reference[at].any()
                }

        self.volumes(self.split.test, shown, keep)
        return found


def table(dice: Dice, keep: Callable[[str], bool]) -> dict[str, Any]:
    """Mean over patients of each region, and every patient's WT."""
    chosen = {study: regions for study, regions in sorted(dice.items()) if keep(study)}
    means = {
        region: mean_over_patients({study: [found[region]] for study, found in chosen.items() if region in found})
        for region in REGIONS
        if any(region in found for found in chosen.values())
    }
    return {**means, "patients_wt": {study: round(found["WT"], 4) for study, found in chosen.items()}}


def main() -> None:
    options, store = trained(__doc__)
    pooled: dict[str, dict[str, Dice]] = {part: {"plain": {}, "processed": {}} for part in SHOWN}
    choices = {}
    for number in options.folds:
        fold = Fold(store, options.work / f"fold-{number}")
        chosen = fold.choose()
        choices[str(number)] = chosen.model_dump()
        for part, shown in SHOWN.items():
            for name, dice in fold.test(chosen, shown).items():
                pooled[part][name] |= dice
    results = {
        source: {part: {name: table(dice, keep) for name, dice in ways.items()} for part, ways in pooled.items()}
        for source, keep in (("lgg", is_lgg), ("brats", is_brats))
    }
    save_table("served", {"seed": SEED, "image_size": SIZE, "chosen": choices, "table": results})


if __name__ == "__main__":
    main()
