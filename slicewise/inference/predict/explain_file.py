"""A picture of where in one slice the evidence for tumour lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slicewise.errors import InputError, UsageError
from slicewise.evaluation.overlays import FORMATS, save_picture
from slicewise.inference.explain import ExplainMethod
from slicewise.inference.predict.items import Item, only_item
from slicewise.inference.predict.model import PredictModel
from slicewise.inference.predict.outputs import draw_slice, most_suspicious
from slicewise.inference.predict.slice_files import read_slice
from slicewise.inference.predictor import Prediction, PredictOptions, SliceInput
from slicewise.inference.study import predict_study
from slicewise.inference.study_slices import StudySlices
from slicewise.studies.reading import read_study


@dataclass(frozen=True)
class ExplainJob:
    """What to explain.

    Attributes:
        given: A slice, a volume or a study's folder.
        out: The picture to write.
        method: How.
        slice_index: Of a study; None takes the one of the highest tumour probability.
        modalities: Of files that do not tell.
    """

    given: Path
    out: Path
    method: ExplainMethod = "gradcam"
    slice_index: int | None = None
    modalities: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Explained:
    """The slice that was explained.

    Attributes:
        prediction: With its map.
        slice_index: In the study; None for a single slice.
    """

    prediction: Prediction
    slice_index: int | None


def explain_file(job: ExplainJob, model: PredictModel) -> Explained:
    """Write the picture: the slice, the masks, and the evidence in colours, with the words that it is no diagnosis.

    Raises:
        UsageError: The picture's suffix is unknown, several studies were given, or the slice is not in the study.
        InputError: The slice cannot be predicted.
        StudyError: The study cannot be read.
    """
    if job.out.suffix not in FORMATS:
        raise UsageError(f"{job.out} is no picture's name", f"let --out end in one of {', '.join(FORMATS)}")
    options = PredictOptions(("classify", "segment", "explain"), explain_method=job.method)
    model.require_tasks(options.tasks)
    item = only_item(job.given, job.modalities, model.settings.preprocessing.unknown_modality)
    chosen, index = _of_study(item, job, model) if item.record else (_of_slice(item, job, model), None)
    prediction = _predict(model, chosen, options)
    place = "" if index is None else f", slice {index}"
    said = f"{item.name}{place}: {job.method}, tumour probability {prediction.tumor_probability:.2f}"
    save_picture(draw_slice(chosen, prediction, said), job.out)
    return Explained(prediction, index)


def _of_slice(item: Item, job: ExplainJob, model: PredictModel) -> SliceInput:
    if job.slice_index is not None:
        raise UsageError("--slice is for studies, and this is a single slice", "leave it out")
    return read_slice(item.root / item.files[0], job.modalities, model.settings.preprocessing.modalities).slice


def _of_study(item: Item, job: ExplainJob, model: PredictModel) -> tuple[SliceInput, int]:
    assert item.record is not None
    study = read_study(item.record, item.root)
    index = job.slice_index
    if index is None:
        options = PredictOptions(("classify",))
        index = most_suspicious(predict_study(study, model.slices(for_study=True), model.settings, options))
    slices = StudySlices(study, model.settings)
    found = next((one for one in slices if one.index == index), None)
    if found is None:
        message = f"slice {index} has no head, or is not among the {len(slices)} slices"
        raise UsageError(message, "choose another --slice, or leave it out")
    if isinstance(found.item, InputError):
        raise found.item
    return found.item, index


def _predict(model: PredictModel, item: SliceInput, options: PredictOptions) -> Prediction:
    outcome = model.slices(for_study=False)([item], options)[0]
    if isinstance(outcome, InputError):
        raise outcome
    return outcome
