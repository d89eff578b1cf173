"""The out-of-distribution score on the wire: V1, V2 and bare files through the handler's batch, REST fields."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from small_run import SmallRun

from serving.codecs import v2
from serving.codecs.v2_answer import read_predictions
from serving.torchserve.batch import answer
from serving.torchserve.jobs import Served
from slicewise.inference.bundle import write_bundle
from slicewise.inference.ood import OodRecord
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput
from slicewise.studies.reading import read_study


@pytest.fixture(scope="module")
def scoring(small_run: SmallRun) -> Predictor:
    return Predictor.load(small_run.bundle.folder, "cpu", threads=1)


@pytest.fixture(scope="module")
def silent(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The same model without the score."""
    meta = small_run.bundle.meta.model_copy(update={"ood": OodRecord(reason="left out"), "files": {}})
    folder: Path = tmp_path_factory.mktemp("silent") / "bundle"
    return Predictor(write_bundle(folder, small_run.bundle.network().state_dict(), meta), "cpu", threads=1)


@pytest.fixture(scope="module")
def images(small_run: SmallRun) -> NDArray[np.float32]:
    """FLAIR of a held-out phantom's slice, noise, and nothing: ``[3, 1, 48, 48]``."""
    data = small_run.data
    entry = data.store.studies[data.split.test[0]]
    record = next(record for record in data.dataset.records if record.study_id == entry.study_id)
    study = read_study(record, data.dataset.root)
    flair = study.channels[study.modalities.index("flair")][entry.slices[len(entry.slices) // 2].z]
    noise = np.random.default_rng(0).uniform(0, 1000, flair.shape)
    return np.stack([flair, noise, np.zeros_like(flair)])[:, None].astype(np.float32)


@pytest.fixture(scope="module")
def expected(scoring: Predictor, images: NDArray[np.float32]) -> list[Prediction]:
    outcomes = scoring.predict([SliceInput(image, ("flair",)) for image in images[:2]], PredictOptions(("classify",)))
    return [outcome for outcome in outcomes if isinstance(outcome, Prediction)]


def ask(predictor: Predictor, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
    (reply,) = answer([(body, headers or {})], predictor, Served(predictor.bundle, "slicewise"))
    return reply.status, reply.body, dict(reply.headers)


def request(images: NDArray[np.float32], wanted: tuple[str, ...] = ()) -> dict[str, Any]:
    body, _ = v2.write(v2.Message({"image": images}, {"tasks": "classify", "modalities": "flair"}), "inputs", False)
    message: dict[str, Any] = orjson.loads(body)
    return message | ({"outputs": [{"name": name} for name in wanted]} if wanted else {})


def test_v2_json_returns_it_with_every_prediction(
    scoring: Predictor, images: NDArray[np.float32], expected: list[Prediction]
) -> None:
    status, body, _ = ask(scoring, request(images))
    assert status == 200
    answered = orjson.loads(body)
    outputs = {output["name"]: output for output in answered["outputs"]}
    assert (outputs["ood_score"]["datatype"], outputs["ood_score"]["shape"]) == ("FP32", [3])
    typical, noise, failed = outputs["ood_score"]["data"]
    assert (typical, noise) == pytest.approx([item.ood_score for item in expected], abs=1e-4)
    assert failed is None
    assert answered["parameters"]["ood_flag"] == "false,true,"


def test_v2_binary_and_on_demand(scoring: Predictor, images: NDArray[np.float32], expected: list[Prediction]) -> None:
    asked = v2.Message({"image": images}, {"modalities": "flair"}, wanted=("ood_score",))
    body, length = v2.write(asked, "inputs", binary=True)
    status, content, headers = ask(scoring, body, {v2.LENGTH_HEADER.lower(): str(length)})
    assert status == 200
    tensors = v2.parse(content, headers[v2.LENGTH_HEADER], "outputs").tensors
    assert list(tensors) == ["ood_score"]
    assert tensors["ood_score"].dtype == np.float32
    np.testing.assert_allclose(tensors["ood_score"][:2], [item.ood_score for item in expected], atol=1e-4)
    assert np.isnan(tensors["ood_score"][2])


def test_v1_and_bare_files(scoring: Predictor, images: NDArray[np.float32], expected: list[Prediction]) -> None:
    instances = [{"image": image[0].tolist(), "modalities": "flair"} for image in images]
    _, body, _ = ask(scoring, {"instances": instances, "parameters": {"tasks": "classify"}})
    typical, noise, failed = orjson.loads(body)["predictions"]
    assert typical["ood_score"] == pytest.approx(expected[0].ood_score, abs=1e-4)
    assert (typical["ood_flag"], noise["ood_flag"]) == (False, True)
    assert "ood_score" not in failed
    buffer = io.BytesIO()
    np.save(buffer, images[1, 0])
    _, body, _ = ask(scoring, buffer.getvalue(), {"x-slicewise-params": '{"modalities": "flair"}'})
    assert orjson.loads(body)["ood_flag"] is True


def test_rest_fields_are_the_first_slices(
    scoring: Predictor, images: NDArray[np.float32], expected: list[Prediction]
) -> None:
    _, body, _ = ask(scoring, request(images[1:2]))
    (found,) = read_predictions(v2.parse(body, None, "outputs"))
    assert isinstance(found, Prediction)
    assert found.ood_score == pytest.approx(expected[1].ood_score, abs=1e-4)
    assert found.ood_flag is True


def test_a_model_without_it_says_so(silent: Predictor, images: NDArray[np.float32]) -> None:
    status, body, _ = ask(silent, request(images[:2]))
    assert status == 200
    found = v2.parse(body, None, "outputs")
    assert "ood_score" not in found.tensors
    (first, _) = read_predictions(found)
    assert isinstance(first, Prediction)
    assert (first.ood_score, first.ood_flag) == (None, None)
    status, body, _ = ask(silent, request(images, ("ood_score",)))
    error = orjson.loads(body)["error"]
    assert status == 400
    assert "no 'ood_score'" in error["message"]
    assert "package" in error["cure"]
    _, body, _ = ask(silent, {"instances": [{"image": images[0, 0].tolist()}]})
    assert orjson.loads(body)["predictions"][0]["ood_score"] is None


def test_describe_tells_of_it(scoring: Predictor, silent: Predictor) -> None:
    told, untold = (orjson.loads(ask(model, {"describe": True})[1])["ood"] for model in (scoring, silent))
    assert told["threshold"] == scoring.meta.ood.threshold
    assert (untold["threshold"], untold["reason"]) == (None, "left out")
