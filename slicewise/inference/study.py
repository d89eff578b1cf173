"""A whole study through anything that predicts slices: the Predictor, or a server's connection to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from slicewise.errors import InputError
from slicewise.inference.components3d import Spacing, check_spacing
from slicewise.inference.measures import StudyMeasures, measure
from slicewise.inference.predictor import Prediction, PredictOptions, SliceInput
from slicewise.inference.study_records import SliceRecord, StudyPrediction, StudySettings, patient_probability
from slicewise.inference.study_slices import FoundSlice, StudySlices
from slicewise.inference.study_volumes import StudyVolumes
from slicewise.studies.study import Study

__all__ = ["SlicePredict", "SliceRecord", "StudyPrediction", "StudySettings", "predict_study"]

SlicePredict = Callable[[Sequence[SliceInput], PredictOptions], Sequence[Prediction | InputError]]
Progress = Callable[[int, int], None]
# What is in memory at once, beside the study: slices, and pixels of each channel.
CHUNK_SLICES, CHUNK_PIXELS = 16, 4_000_000


@dataclass
class _Answers:
    """What was said of the slices so far."""

    good: dict[int, Prediction] = field(default_factory=dict)
    bad: dict[int, InputError] = field(default_factory=dict)
    uncertainty: dict[int, float] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    def add(self, chunk: Sequence[FoundSlice], outcomes: Sequence[Prediction | InputError]) -> None:
        """Take a chunk's outcomes, without their maps."""
        answers = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
        for phase, value in (answers[0].timings_ms if answers else {}).items():
            self.timings[phase] = self.timings.get(phase, 0.0) + value
        for found, outcome in zip(chunk, outcomes, strict=True):
            if isinstance(outcome, InputError):
                self.bad[found.index] = outcome
                continue
            if outcome.uncertainty is not None and found.head is not None:
                self.uncertainty[found.index] = float(outcome.uncertainty[found.head].mean(dtype="float64"))
            self.good[found.index] = _without_maps(outcome)


def predict_study(
    study: Study,
    predict: SlicePredict,
    settings: StudySettings,
    options: PredictOptions | None = None,
    on_progress: Progress | None = None,
    *,
    keep_probability: bool = False,
) -> StudyPrediction:
    """Predict every slice of a study, and the study from them.

    Slices without a head are left out, as in the slice store; one that fails is named and the others go on. Masks
    are put together from the slices' calibrated maps and post-processed in space, as evaluation does.

    Args:
        study: As ``read_study`` gives it; its labels are not looked at.
        predict: Predicts a batch of slices, one outcome each. With the task ``segment`` the predictions hold
            ``region_probability`` where ``settings.needs_probability`` or ``keep_probability``; else a ``mask``.
        settings: Of the bundle behind ``predict``.
        options: As for slices.
        on_progress: Told how many slices are done, and of how many.
        keep_probability: Keep the regions' probability, too: a volume of 12 bytes a voxel.

    Raises:
        InputError: The study has no modality that the model knows, no slice with a head, or no slice that could
            be predicted; or its spacing is no size.
    """
    start = time.perf_counter()
    options = options or PredictOptions()
    spacing = _spacing(study)
    slices = StudySlices(study, settings)
    volumes = StudyVolumes(study, settings, options.tasks, keep_probability)
    answers = _Answers()
    for chunk in _chunks(slices):
        outcomes = _predict_chunk(chunk, predict, options)
        volumes.add(chunk, outcomes)
        answers.add(chunk, outcomes)
        if on_progress:
            on_progress(chunk[-1].index + 1, len(slices))
    _require_answer(answers)
    if on_progress:
        on_progress(len(slices), len(slices))
    sliced = time.perf_counter()
    measures = _finish(volumes, spacing, study.spacing_known)
    end = time.perf_counter()
    answers.timings |= {"study": 1e3 * (end - sliced), "total": 1e3 * (end - start)}
    return _tell(answers, volumes, measures, slices, settings)


def _chunks(slices: StudySlices) -> Iterator[list[FoundSlice]]:
    size = max(1, min(CHUNK_SLICES, CHUNK_PIXELS // (slices.shape[1] * slices.shape[2])))
    walk = iter(slices)
    while chunk := list(islice(walk, size)):
        yield chunk


def _predict_chunk(
    chunk: Sequence[FoundSlice], predict: SlicePredict, options: PredictOptions
) -> list[Prediction | InputError]:
    """One outcome for each slice of the chunk; those found wrong are not sent."""
    items = [found.item for found in chunk if isinstance(found.item, SliceInput)]
    answers = list(predict(items, options) if items else ())
    if len(answers) != len(items):
        raise ValueError(f"predict gave {len(answers)} outcomes for {len(items)} slices")
    return [found.item if isinstance(found.item, InputError) else answers.pop(0) for found in chunk]


def _without_maps(answer: Prediction) -> Prediction:
    return Prediction(
        tumor_probability=answer.tumor_probability,
        tumor_label=answer.tumor_label,
        threshold=answer.threshold,
        decision=answer.decision,
        ood_score=answer.ood_score,
        ood_flag=answer.ood_flag,
    )


def _spacing(study: Study) -> Spacing:
    try:
        return check_spacing(study.spacing_mm)
    except ValueError as error:
        raise InputError(f"spacing: {error}", "send the size of a voxel in mm, or none at all") from error


def _require_answer(answers: _Answers) -> None:
    """Refuse a study of which nothing can be said."""
    if answers.good:
        return
    if not answers.bad:
        raise InputError("image: no slice shows head or brain", "send a scan of the head, not an empty one")
    index, error = next(iter(answers.bad.items()))
    raise type(error)(f"no slice could be predicted; slice {index}: {error.message}", error.cure)


def _finish(volumes: StudyVolumes, spacing: Spacing, known: bool) -> StudyMeasures | None:
    volumes.postprocess(spacing)
    if volumes.mask is None or not known:
        return None
    return measure(volumes.mask, spacing, volumes.head)


def _tell(
    answers: _Answers,
    volumes: StudyVolumes,
    measures: StudyMeasures | None,
    slices: StudySlices,
    settings: StudySettings,
) -> StudyPrediction:
    said = answers.good.values()
    threshold = next(iter(said)).threshold
    probability = patient_probability([answer.tumor_probability for answer in said])
    flags = [answer.ood_flag for answer in said if answer.ood_flag is not None]
    areas = volumes.areas(slices.spacing_mm) if measures else {}
    return StudyPrediction(
        tumor_probability=probability,
        tumor_label=probability >= threshold,
        threshold=threshold,
        decision=settings.calibration.decide(probability, threshold),
        slices=tuple(_record(index, answers, areas) for index in range(len(slices))),
        mask=None if volumes.mask is None else volumes.mask.view("uint8"),
        region_probability=volumes.probability,
        uncertainty=volumes.uncertainty,
        gradcam=volumes.gradcam,
        measures=measures,
        ood_share=sum(flags) / len(flags) if flags else None,
        trained_regions=settings.trained_regions,
        modalities=slices.modalities,
        timings_ms=answers.timings,
    )


def _record(index: int, answers: _Answers, areas: dict[str, list[float]]) -> SliceRecord:
    answer = answers.good.get(index)
    if answer is None:
        return SliceRecord(index, error=answers.bad.get(index))
    return SliceRecord(
        index=index,
        tumor_probability=answer.tumor_probability,
        tumor_label=answer.tumor_label,
        decision=answer.decision,
        area_mm2={name: values[index] for name, values in areas.items()} or None,
        ood_score=answer.ood_score,
        ood_flag=answer.ood_flag,
        mean_uncertainty=answers.uncertainty.get(index),
    )
