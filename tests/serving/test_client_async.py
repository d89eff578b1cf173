"""The async client against a real stack: its ways of sending; what it sends is the sync client's."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from uploaded_study import make_upload

from serving.client import AsyncClient, FailedImage
from serving.state import StackState
from serving.status import BackendError, UnknownVersionError
from slicewise.errors import InputError
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput


def test_many_at_once(stack: StackState, head: NDArray[np.uint8], predictor: Predictor) -> None:
    outcome = predictor.predict([SliceInput(head[np.newaxis], ("unknown",))], PredictOptions())[0]
    assert isinstance(outcome, Prediction)

    async def ask() -> list[Any]:
        async with AsyncClient(stack.gateway_url) as client:
            assert await client.ready()
            assert (await client.health()).status == "ok"
            return await asyncio.gather(*(client.segment(head) for _ in range(6)), client.classify_batch([head, b""]))

    *segmented, batch = asyncio.run(ask())
    for answer in segmented:
        assert answer.tumor_probability == pytest.approx(outcome.tumor_probability, abs=1e-5)
        np.testing.assert_array_equal(answer.mask, outcome.mask)
    assert isinstance(batch[1], FailedImage)


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_slices(over: str, stack: StackState, head: NDArray[np.uint8], predictor: Predictor) -> None:
    images = np.stack([head[np.newaxis], np.zeros_like(head)[np.newaxis]])
    expected = predictor.predict([SliceInput(image, ("t2",)) for image in images], PredictOptions())
    target = f"127.0.0.1:{stack.grpc_port}" if over == "grpc" else None

    async def ask() -> Any:
        async with AsyncClient(stack.gateway_url, grpc_target=target) as client:
            with pytest.raises(UnknownVersionError):
                await client.predict_slices(images, version="77")
            return await client.predict_slices(images, modalities="t2")

    answer = asyncio.run(ask())
    good, bad = answer.outcomes
    assert isinstance(expected[0], Prediction)
    np.testing.assert_array_equal(good.mask, expected[0].mask)
    assert isinstance(bad, InputError)
    assert str(bad) == str(expected[1])
    assert answer.model_digest == predictor.bundle.digest


def test_job(stack: StackState, tmp_path_factory: pytest.TempPathFactory) -> None:
    upload = make_upload(tmp_path_factory.mktemp("upload"))

    async def ask() -> Any:
        async with AsyncClient(stack.gateway_url) as client:
            job = await client.submit(upload.nifti)
            await client.wait(job.job_id)
            result, mask = await client.result(job.job_id), await client.job_mask(job.job_id)
            await client.delete_job(job.job_id)
            return result, mask

    result, mask = asyncio.run(ask())
    assert result.n_slices == upload.phantom.images["flair"].shape[2]
    assert mask[:2] == b"\x1f\x8b"


@pytest.mark.parametrize("target", [None, "127.0.0.1:9"])
def test_no_server_there(target: str | None, head: NDArray[np.uint8]) -> None:
    async def ask() -> None:
        async with AsyncClient("http://127.0.0.1:9", grpc_target=target) as client:
            await client.predict_slices(head[np.newaxis, np.newaxis])

    with pytest.raises(BackendError, match="cannot be reached"):
        asyncio.run(ask())
