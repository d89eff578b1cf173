"""Whom a canary asks: a gateway by REST, or TorchServe behind Knative's address of one revision."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from serving.canary import Asker
from serving.client.sync_client import Client
from serving.gateway.torchserve_http import HttpBackend
from serving.status import DeadlineError
from slicewise.config import ServeConfig


@contextmanager
def gateway_asker(url: str, config: ServeConfig) -> Iterator[Asker]:
    """Asks a gateway; one that says it is busy has failed."""
    with Client(url, timeout_s=config.timeout_s, patience_s=0.0) as client:
        yield lambda picture: str(client.multitask(picture).predicted_label)


@contextmanager
def predictor_asker(url: str, config: ServeConfig) -> Iterator[Asker]:
    """Asks TorchServe itself, as the gateway does."""
    backend = HttpBackend(url, config)
    with asyncio.Runner() as runner:
        try:

            def ask(picture: NDArray[np.uint8]) -> str:
                tensors = {"image": picture[np.newaxis, np.newaxis].astype(np.float32)}
                answer = runner.run(backend.infer(tensors, {"tasks": "classify"}))
                return str(bool(np.asarray(answer.tensors["tumor_label"]).item()))

            yield ask
        finally:
            runner.run(backend.close())


def served_digest(url: str, config: ServeConfig) -> str:
    """The bundle that TorchServe at an address has loaded.

    Raises:
        BackendError: It does not answer.
    """

    async def ask() -> str:
        backend = HttpBackend(url, config)
        try:
            async with asyncio.timeout(config.timeout_s):
                return str((await backend.describe())["digest"])
        except TimeoutError as error:
            raise DeadlineError(f"{url} gave no answer within {config.timeout_s} s") from error
        finally:
            await backend.close()

    return asyncio.run(ask())
