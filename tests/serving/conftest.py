"""A real stack: TorchServe and the gateway, from a bundle with seeded random weights."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.local import start_detached, stop_stack
from serving.ports import free_port
from serving.state import StackState
from slicewise.config import ModelConfig, ServeConfig, SliceConfig
from slicewise.inference.bundle import CARD, BundleMeta, write_bundle
from slicewise.inference.predictor import Predictor

# The DICOM writer lies with the tests of the DICOM reader.
sys.path.append(str(Path(__file__).parents[1] / "studies"))

LIMIT_MB = 4


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from slicewise.model.network import MultiTaskUNet

    torch.manual_seed(7)
    network = MultiTaskUNet(4, ModelConfig())
    meta = BundleMeta(architecture=ModelConfig(), preprocessing=SliceConfig(), model_version="3")
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(folder, network.state_dict(), meta, {CARD: "# Random weights\n"})
    return folder


@pytest.fixture(scope="session")
def predictor(bundle_dir: Path) -> Predictor:
    return Predictor.load(bundle_dir, "cpu", threads=1)


@pytest.fixture(scope="session")
def metrics_port() -> int:
    """Where the stack's TorchServe shows its metrics."""
    return free_port()


@pytest.fixture(scope="session")
def stack(bundle_dir: Path, metrics_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackState]:
    work = tmp_path_factory.mktemp("stack")
    config = ServeConfig(max_request_mb=LIMIT_MB, torchserve_metrics_port=metrics_port)
    state = start_detached(bundle_dir, None, config, work, os.getpid(), 120)
    yield state
    stop_stack(state)
    assert not psutil.pid_exists(state.java_pid)


@pytest.fixture(scope="session")
def head() -> NDArray[np.uint8]:
    """A slice ``[151, 133]`` with something like a head in it."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:151, :133]
    inside = ((rows - 70) / 55) ** 2 + ((columns - 66) / 45) ** 2 < 1
    texture = 90 + 60 * np.sin(rows / 9) * np.cos(columns / 7) + rng.normal(0, 12, inside.shape)
    return np.where(inside, texture, 0).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """Arrays as file content: PNG, JPEG or npy."""

    def encode(array: NDArray[Any], kind: str = "PNG", mode: str | None = None) -> bytes:
        buffer = io.BytesIO()
        if kind == "npy":
            np.save(buffer, array)
        else:
            image = Image.fromarray(array)
            (image.convert(mode) if mode else image).save(buffer, kind)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def write_golden() -> bool:
    """Whether the golden files are to be written again: ``SLICEWISE_WRITE_GOLDEN=1``."""
    return os.environ.get("SLICEWISE_WRITE_GOLDEN") == "1"
