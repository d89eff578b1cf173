"""The decision in the answers of all protocols."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from serving.answers import class_fields
from serving.codecs import v1, v2, v2_model
from slicewise.errors import InputError
from slicewise.inference.calibration import Decision
from slicewise.inference.predictor import Prediction


def prediction(probability: float, decision: Decision) -> Prediction:
    return Prediction(probability, probability >= 0.5, 0.5, decision=decision)


@pytest.mark.parametrize(
    ("probability", "decision", "label", "abstain"),
    [(0.9, "tumour", "tumour", False), (0.6, "unsure", "tumour", True), (0.1, "no_tumour", "no tumour", False)],
)
def test_the_fields_of_an_answer(probability: float, decision: Decision, label: str, abstain: bool) -> None:
    """The label says what the threshold says; the decision may abstain."""
    fields = class_fields(probability, 0.5, decision)
    assert (fields["predicted_label"], fields["decision"], fields["abstain"]) == (label, decision, abstain)
    no_score = {"ood_score": None, "ood_flag": None}
    assert v1.prediction_fields(prediction(probability, decision), None) == fields | no_score


def test_v2_tells_every_slices_decision_in_a_parameter() -> None:
    """The outputs are as ever; a failed slice has none."""
    outcomes = [prediction(0.9, "tumour"), InputError("broken", "mend it"), prediction(0.6, "unsure")]
    request = v2.Message({"image": np.zeros((3, 1, 4, 4), dtype=np.float32)}, {})
    answer = v2_model.build_answer(outcomes, request, {"name": "m", "version": "1", "digest": "d"})
    assert answer.parameters["decision"] == "tumour,,unsure"
    assert set(answer.tensors) == {"tumor_probability", "tumor_label", "error"}
    content, _ = v2.write(answer, "outputs", binary=False)
    assert orjson.loads(content)["parameters"]["decision"] == "tumour,,unsure"
