"""The answers for one slice and for batches of slices."""

from __future__ import annotations

from pydantic import Field

from serving.gateway.rest.schemas import Answer, ErrorFields, ModelFields, Record
from slicewise.inference.calibration import Decision

ByRegion = dict[str, float | None]


class ClassProbabilities(Record):
    """They sum to 1."""

    no_tumor: float
    tumor: float


class RunLengths(Record):
    """Uncompressed run lengths as in COCO."""

    size: list[int] = Field(description="Height and width.")
    counts: list[int] = Field(description="Runs of 0 and 1 in turn, of 0 first, down the columns from the left.")


class Components(Record):
    """The separate pieces of one region."""

    count: int
    sizes_pixels: list[int] = Field(description="Largest first.")


class Uncertainty(Record):
    """Entropies in nats. Maps: of the whole tumour; figures: mean of the maps over the head."""

    mean: float | None = Field(description="Predictive entropy; null where nothing was segmented.")
    epistemic: float | None = Field(description="Mutual information: what more training data could settle.")
    aleatoric: float | None = Field(description="Expected entropy: what no training data could settle.")
    tumor_probability_std: float | None = Field(description="Standard deviation of the tumour probability.")
    sources: list[str] = Field(description="What made the samples differ: some of dropout, mirror.")
    map: str | None = Field(description="Predictive entropy, [H, W]; a PNG goes from 0 to ln 2 nats.")
    epistemic_map: str | None
    aleatoric_map: str | None
    overlay: str | None = Field(description="The map over the slice, RGB PNG in base64; with overlay=true.")


class ClassFields(Record):
    """What classification says of a slice."""

    prediction: str = Field(description="no tumour, or tumour: by the threshold alone.")
    predicted_label: str = Field(description="The same.")
    tumor_label: bool
    confidence: float = Field(description="Calibrated probability of the predicted label.")
    tumor_probability: float = Field(description="Calibrated probability that the slice shows tumour.")
    calibrated_probabilities: ClassProbabilities
    threshold: float
    decision: Decision = Field(description="The label, where the model is sure of it.")
    abstain: bool = Field(description="Whether the decision is unsure.")
    ood_score: float | None = Field(
        description="How unlike the training slices, 0 to 1; null: the model cannot tell."
    )
    ood_flag: bool | None
    ood_parts: dict[str, float] = Field(description="What is unusual: 0 for typical.")


class GradcamFields(ClassFields):
    """With the evidence for tumour."""

    explain_method: str
    gradcam_base64: str = Field(description="The map in [0, 1], inside the head, PNG of the image's size in base64.")
    gradcam_overlay: str = Field(description="The map over the slice, RGB PNG in base64.")


class SegmentFields(ClassFields):
    """With the masks, at the image's own height and width."""

    height: int
    width: int
    mask_format: str
    mask_base64: str | None = Field(description="WT as PNG; null in other formats.")
    masks: dict[str, str | RunLengths] = Field(description="WT, TC and ET in the format asked for.")
    trained_regions: list[str] = Field(description="The model was taught these; the others' masks are empty.")
    tumor_area_pixels: dict[str, int]
    tumor_area_mm2: ByRegion = Field(description="Null without pixel_mm.")
    components: dict[str, Components]
    probability_maps: dict[str, str] | None = Field(description="With probability_map=true; PNG from 0 to 1, or npy.")
    overlay: str | None = Field(description="Slice with outlined masks, RGB PNG in base64; with overlay=true.")


class UncertaintyFields(SegmentFields):
    """With its uncertainty."""

    n_mc_samples: int
    use_tta: bool
    uncertainty: Uncertainty


class MultitaskFields(SegmentFields):
    """Classification, conditional segmentation and what to do next."""

    conditional: bool
    segmented: bool = Field(description="Whether the decoder ran; with conditional=true only from the threshold up.")
    recommendation: str = Field(description="For a researcher who reads the result; never a diagnosis.")


class Single(Answer):
    """One slice."""

    model: ModelFields


class ClassifyAnswer(ClassFields, Single):
    """``POST /classify``."""


class GradcamAnswer(GradcamFields, Single):
    """``POST /classify/gradcam``."""


class SegmentAnswer(SegmentFields, Single):
    """``POST /segment``."""


class UncertaintyAnswer(UncertaintyFields, Single):
    """``POST /segment/uncertainty``."""


class MultitaskAnswer(MultitaskFields, Single):
    """``POST /predict_multitask``."""


class Place(Record):
    """Which image of the batch."""

    index: int
    name: str = Field(description="The file's name, or its place in the request.")


class ClassifyEntry(ClassFields, Place):
    """One classified image."""


class SegmentEntry(SegmentFields, Place):
    """One segmented image."""


class FailedEntry(Place):
    """One image that failed alone."""

    error: ErrorFields


class Batch(Answer):
    """Several images, in the request's order."""

    model: ModelFields | None = Field(description="Null where every image failed.")
    n_images: int
    n_failed: int
    failed: list[str] = Field(description="Names of the images that failed.")


class ClassifyBatch(Batch):
    """``POST /classify/batch``."""

    results: list[ClassifyEntry | FailedEntry]


class SegmentBatch(Batch):
    """``POST /segment/batch``."""

    results: list[SegmentEntry | FailedEntry]
