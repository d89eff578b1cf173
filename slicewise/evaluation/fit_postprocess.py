"""Post-processing chosen on the validation split, in the studies' own voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slicewise.config import ModelConfig
from slicewise.evaluation.collector import StudyCollector
from slicewise.evaluation.outputs import collect_outputs, group_names
from slicewise.evaluation.study_volume import StudyOutputs, restore_study
from slicewise.evaluation.tune_postprocess import PackedStudy, ValidationStudy, choose_postprocess
from slicewise.files import read_result
from slicewise.inference.calibration import Calibration
from slicewise.inference.postprocess import PostProcess
from slicewise.inference.restore import trained_mask
from slicewise.progress import Update
from slicewise.slices.split import load_split
from slicewise.slices.store import SliceStore
from slicewise.training.record import RECORD


def fit_postprocess(
    store_folder: Path,
    split: Path,
    weights: Path,
    model: ModelConfig,
    calibration: Calibration,
    update: Update | None = None,
) -> tuple[PostProcess, list[dict[str, Any]]]:
    """Choose the post-processing that the bundle gets.

    The masks hang on the calibration, so the network goes through the validation split a second time.

    Args:
        store_folder: The slice store.
        split: The folder of ``split.json``.
        weights: The folder of the trained weights.
        model: The section ``model``.
        calibration: What was fitted on the same split.
        update: Shows progress.

    Returns:
        The choice, and a row for everything that was tried (``choose_postprocess``).
    """
    store, groups = SliceStore(store_folder), group_names(split)
    trained = trained_mask(read_result(weights / RECORD, "train")["trained_regions"])
    studies: list[PackedStudy] = []

    def keep(outputs: StudyOutputs) -> None:
        volume = restore_study(store, outputs, calibration, trained)
        if volume.known.any():
            group = groups[outputs.key]
            study = ValidationStudy(volume.predicted, volume.reference, volume.known, volume.spacing_mm, group)
            studies.append(PackedStudy.of(study))

    collector = StudyCollector(load_split(split).val, calibration, keep)
    collect_outputs(store_folder, split, weights, model, "val", visit=collector, update=update)
    collector.finish()
    return choose_postprocess(studies)
