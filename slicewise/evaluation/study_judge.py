"""Everything that is told of one test study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS, EvaluateConfig
from slicewise.evaluation.explanation import explanation_of_slice
from slicewise.evaluation.overlap import count_overlap, study_figures
from slicewise.evaluation.pictured import pick_slices
from slicewise.evaluation.study_pictures import draw_slices
from slicewise.evaluation.study_volume import StudyOutputs, StudyVolume, restore_study
from slicewise.evaluation.uncertainty_quality import uncertainty_of_study
from slicewise.inference.calibration import Calibration
from slicewise.inference.measures import measure
from slicewise.inference.postprocess import PostProcess
from slicewise.inference.study_records import patient_probability
from slicewise.slices.store import SliceStore, StudyEntry

Record = dict[str, Any]
WT = REGIONS.index("WT")


@dataclass(frozen=True)
class Judged:
    """One study, judged.

    Attributes:
        record: What ``metrics.json`` tells of it.
        uncertainty: As ``uncertainty_of_study`` gives, with curves; None where nothing was sampled or is known.
        explained: As ``explanation_of_slice`` gives, of the slices of a study with a mask.
    """

    record: Record
    uncertainty: Record | None
    explained: list[Record]


@dataclass(frozen=True)
class StudyJudge:
    """Judges studies one by one.

    Attributes:
        store: The slice store.
        groups: Study key → patient group.
        calibration: The bundle's.
        postprocess: The bundle's.
        trained: ``[3]``: the regions that some training mask told.
        config: The section ``evaluate``.
        pictures: Where pictures go, one folder per study.
    """

    store: SliceStore
    groups: Mapping[str, str]
    calibration: Calibration
    postprocess: PostProcess
    trained: NDArray[np.bool_]
    config: EvaluateConfig
    pictures: Path

    def judge(self, outputs: StudyOutputs) -> Judged:
        """Restore a study to its own voxels, measure it and draw its slices.

        Raises:
            StoreError: A file of the study is missing or damaged.
        """
        study = self.store.studies[outputs.key]
        volume = restore_study(self.store, outputs, self.calibration, self.trained)
        spacing = volume.spacing_mm if volume.spacing_known else None
        final = self.postprocess.apply(volume.predicted, volume.spacing_mm)
        figures: Record = dict(study_figures(final, volume.reference, volume.known, spacing, volume.head))
        probability = self.calibration.tumour.apply(outputs.tumour)
        record = self._about(study, probability) | figures | _measures(final, volume, figures)
        before = count_overlap(volume.predicted[WT], volume.reference[WT]).figures()["dice"]
        record["WT"]["dice_before_postprocessing"] = before if volume.known[WT] else None
        record["mean_uncertainty"] = _mean_uncertainty(volume, final)
        record["pictures"] = self._draw(outputs, volume, final, probability)
        return Judged(record, _uncertainty(volume, final), self._explained(outputs))

    def _about(self, study: StudyEntry, probability: NDArray[np.float32]) -> Record:
        known = [value for value in study.slices.tumour if value is not None]
        return {
            "study": study.key,
            "patient": self.groups[study.key],
            "source": study.source,
            "grade": study.grade,
            "n_slices": len(study.slices),
            "modalities": list(study.modalities),
            "tumour_probability": patient_probability(probability),
            "tumour_true": any(known) if known else None,
            "tumour_slices": int(sum(known)) if known else None,
            "tumour_slices_called": int((probability >= self.calibration.threshold.value).sum()),
        }

    def _draw(
        self,
        outputs: StudyOutputs,
        volume: StudyVolume,
        final: NDArray[np.bool_],
        probability: NDArray[np.float32],
    ) -> list[Record]:
        z = list(self.store.studies[outputs.key].slices.z)
        areas = [volume_of[WT, z].sum(axis=(1, 2)) for volume_of in (final, volume.reference)]
        rows = pick_slices(areas[0], areas[1], self.config.pictured_slices)
        return draw_slices(self.store, outputs, volume, final, probability, rows, self.pictures)

    def _explained(self, outputs: StudyOutputs) -> list[Record]:
        """The evidence against the whole tumour, at the network's size: the map has no more detail than that."""
        study = self.store.studies[outputs.key]
        if outputs.cams is None or not study.has_labels or "WT" not in study.known_regions:
            return []
        images, labels = self.store.images(outputs.key), self.store.labels(outputs.key)
        return [
            explanation_of_slice(outputs.cams[row], labels[row] > 0, (images[row] != 0).any(axis=0))
            for row in range(len(labels))
            if labels[row].any()
        ]


def _measures(final: NDArray[np.bool_], volume: StudyVolume, figures: Record) -> Record:
    """Adds slices and diameters to the regions' figures; returns the side."""
    if not volume.spacing_known:
        return {"laterality": None}
    found = measure(final, volume.spacing_mm, volume.head)
    for name, region in found.regions.items():
        measures = {"slices": region.slices, "diameters_mm": region.diameters_mm, "components": region.components}
        figures[name] |= measures
    return {"laterality": found.laterality.model_dump(mode="json")}


def _mean_uncertainty(volume: StudyVolume, final: NDArray[np.bool_]) -> float | None:
    """Mean entropy in nats where the model draws the whole tumour; None where it draws none, or without samples."""
    if volume.uncertainty is None or not final[WT].any():
        return None
    return float(volume.uncertainty[WT][final[WT]].mean(dtype=np.float64))


def _uncertainty(volume: StudyVolume, final: NDArray[np.bool_]) -> Record | None:
    if volume.uncertainty is None or not volume.known.any():
        return None
    return uncertainty_of_study(volume.uncertainty, final, volume.reference, volume.head, volume.known)
