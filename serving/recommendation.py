"""What a reader may do next after a prediction: careful words, for research, never a diagnosis."""

from __future__ import annotations

from slicewise.inference.calibration import Decision

CLOSING = "For research use only: this is not a diagnosis."
UNLIKE = (
    "The image is unlike those that the model was trained on, so its result should not be relied on. "
    "Check that it is an axial brain MRI slice, upright, of the sequence that was named."
)
BY_DECISION: dict[Decision, str] = {
    "tumour": "The model's probability of tumour is above its threshold. A qualified reader should look at the whole "
    "study; outlines and areas are the model's own and need checking.",
    "no_tumour": "The model's probability of tumour is below its threshold. That does not rule a tumour out: small "
    "or unusual ones are missed, and other slices and sequences were not looked at.",
    "unsure": "The model's probability of tumour is too close to its threshold to decide. A qualified reader should "
    "look at it; other slices or sequences of the study may tell more.",
}


def recommend(decision: Decision, ood_flag: bool | None) -> str:
    """The text for one prediction.

    Args:
        decision: Of the model, with its band of doubt.
        ood_flag: Whether the input is unlike the training slices; None where the model cannot tell.
    """
    return f"{UNLIKE if ood_flag else BY_DECISION[decision]} {CLOSING}"
