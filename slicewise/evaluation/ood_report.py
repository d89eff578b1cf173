"""The section ``ood`` of ``metrics.json``: what the out-of-distribution score says of the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import EvaluateConfig, ModelConfig
from slicewise.evaluation.ood import read_ood
from slicewise.evaluation.ood_slices import SideSlices, describe
from slicewise.evaluation.outputs import load_network
from slicewise.evaluation.patient_means import mean_over_patients
from slicewise.inference.ood import OOD_FILE, OodRecord, score_parts
from slicewise.inference.ood_model import load_model
from slicewise.inference.slice_statistics import pooled_width
from slicewise.slices.store import SliceStore

TEST_SLICES = 4000
SHOWN = 200
Section = dict[str, Any]


@dataclass(frozen=True)
class SideScores:
    """Scores of slices of the test split.

    Attributes:
        scores: ``[N]``.
        studies: ``[N]`` key of each slice's study.
        groups: ``[N]`` its patient group.
        sources: ``[N]`` its source.
    """

    scores: NDArray[np.float32]
    studies: Sequence[str]
    groups: Sequence[str]
    sources: Sequence[str]


def score_test(store: Path, split: Path, weights: Path, model: ModelConfig, calibration: Path) -> SideScores | None:
    """The scores of the test split's slices, of a large split some of each study; None without a fitted score.

    Args:
        store: The slice store.
        split: The folder of ``split.json``.
        weights: The folder of the trained weights.
        model: The section ``model``.
        calibration: The folder of the ``calibrate`` stage.

    Raises:
        StoreError: A folder cannot be read.
        BundleError: ``ood.safetensors`` is damaged.
    """
    if read_ood(calibration).threshold is None:
        return None
    opened = SliceStore(store)
    network = load_network(opened, weights, model)
    channels, width = len(opened.index.preprocessing.modalities), pooled_width(network.encoder.widths)
    fitted = load_model(calibration / OOD_FILE, channels, width)
    test = SideSlices.open(opened, split, "test", TEST_SLICES)
    scores, places = [np.zeros(0, dtype=np.float32)], [np.zeros(0, dtype=np.intp)]
    for images, groups, studies in test.batches():
        sample = describe(network, images, groups)
        away = fitted.distances(sample.described, sample.pooled)
        scores.append(score_parts(fitted, away.present, fitted.parts(away)))
        places.append(studies)
    place = np.concatenate(places).tolist()
    keys = [test.data.keys[at] for at in place]
    sources = [opened.studies[key].source for key in keys]
    return SideScores(np.concatenate(scores), keys, [test.names[at] for at in place], sources)


def ood_section(found: SideScores | None, record: OodRecord, config: EvaluateConfig) -> Section:
    """The section: the record, the share of slices that are flagged, of all and by source, and their scores.

    Args:
        found: As ``score_test`` gives them.
        record: As ``read_ood`` gives it.
        config: The section ``evaluate``.
    """
    section: Section = record.model_dump(mode="json")
    if found is None or record.threshold is None or not len(found.scores):
        return section | {"reason": record.reason or "the test split has no slices"}
    flagged = found.scores > np.float32(record.threshold)
    patients, sources = np.asarray(found.groups), np.asarray(found.sources)

    def mean(values: NDArray[Any], groups: NDArray[Any]) -> Section:
        return mean_over_patients(values.tolist(), groups.tolist(), config).model_dump()

    shown = np.sort(found.scores)[np.linspace(0, len(flagged) - 1, min(SHOWN, len(flagged))).round().astype(int)]
    return section | {
        "slices": len(flagged),
        "figures": {"flagged": mean(flagged, patients), "score": mean(found.scores, patients)},
        "by_source": {
            name: {"slices": int(mine.sum()), "flagged": mean(flagged[mine], patients[mine])}
            for name, mine in ((name, sources == name) for name in sorted(set(found.sources)))
        },
        "scores": {"test slices": [round(float(score), 4) for score in shown]},
    }


def study_scores(found: SideScores | None) -> dict[str, float]:
    """Study key → the mean score of its slices."""
    if found is None:
        return {}
    keys = np.asarray(found.studies)
    return {key: float(found.scores[keys == key].mean()) for key in sorted(set(found.studies))}
