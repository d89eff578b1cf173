"""The parameters that the client's methods take by name; all of them may be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

# The words of slicewise.inference.explain, which would bring torch along.
ExplainMethod = Literal["gradcam", "hirescam", "integrated_gradients", "occlusion"]


class SliceOptions(TypedDict, total=False):
    """Of every method that predicts.

    Attributes:
        threshold: On the calibrated probability; the bundle's by default.
        modalities: Of the image's channels: ``flair``, ``t1``, ``t1ce``, ``t2`` or ``unknown``.
        pixel_mm: Side of a pixel in mm, or its height and width: areas in mm² need it.
        version: The model version to ask.
    """

    threshold: float
    modalities: str | Sequence[str]
    pixel_mm: float | tuple[float, float]
    version: str


class ExplainOptions(SliceOptions, total=False):
    """Of ``explain``."""

    explain_method: ExplainMethod


class SegmentOptions(SliceOptions, total=False):
    """Of the methods that give masks.

    Attributes:
        probability_map: Whether to get the calibrated probability of each region.
        overlay: Whether to get a picture with the masks' outlines.
    """

    probability_map: bool
    overlay: bool


class UncertaintyOptions(SegmentOptions, total=False):
    """Of ``uncertainty``.

    Attributes:
        n_mc_samples: Monte-Carlo dropout samples, 1 to 50.
        use_tta: Whether to share them between the slice and its mirror image.
    """

    n_mc_samples: int
    use_tta: bool


class MultitaskOptions(SegmentOptions, total=False):
    """Of ``multitask``.

    Attributes:
        conditional: Segment only if the probability reaches the threshold.
    """

    conditional: bool


class StudyOptions(SliceOptions, total=False):
    """Of ``analyze_study`` and ``submit``.

    Attributes:
        slice_mm: Distance between slices, for a stack of pictures.
        conditional: Segment only slices whose probability reaches the threshold.
    """

    slice_mm: float
    conditional: bool


class V2Options(SliceOptions, total=False):
    """Of ``predict_slices``.

    Attributes:
        tasks: Some of ``classify``, ``segment``, ``explain``, ``uncertainty``.
        n_mc_samples: As for ``uncertainty``.
        use_tta: As for ``uncertainty``.
        explain_method: As for ``explain``.
        conditional: As for ``multitask``.
    """

    tasks: str | Sequence[str]
    n_mc_samples: int
    use_tta: bool
    explain_method: ExplainMethod
    conditional: bool


def as_words(options: Mapping[str, Any]) -> dict[str, str]:
    """Options as a query string has them; what is None is left out."""
    return {name: _word(value) for name, value in options.items() if value is not None}


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    return ",".join(map(str, value)) if isinstance(value, Sequence) else str(value)
