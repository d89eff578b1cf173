"""A stack in the background: started, tried and stopped by another program."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from serving.environment import child_environment
from serving.state import StackState
from serving.trees import end_tree, kill_all, tree_of
from slicewise.config import ServeConfig
from slicewise.errors import ServerError
from slicewise.files import write_json
from slicewise.inference.predictor import SliceInput

POLL_S = 0.1
STOP_S = 30.0
REQUEST_S = 60.0
STATE = "serve.json"
LOG = "serve.log"


@dataclass(frozen=True)
class SmokeFigures:
    """What two requests through the gateway gave.

    Attributes:
        tumor_probability: Of the classification.
        predicted_label: Of the classification.
        mask_pixels: Pixels of each region in the segmentation.
        mask_shape: Height and width of the mask.
        classify_ms: Latency of the classification.
        segment_ms: Latency of the segmentation.
        trained_regions: The regions that the model was taught.
        model_digest: The served bundle's.
    """

    tumor_probability: float
    predicted_label: str
    mask_pixels: dict[str, int]
    mask_shape: tuple[int, int]
    classify_ms: float
    segment_ms: float
    model_digest: str
    trained_regions: tuple[str, ...]


def start_detached(
    bundle: Path,
    mar: Path | None,
    config: ServeConfig,
    work: Path,
    owner_pid: int | None = None,
    timeout_s: float = 240.0,
) -> StackState:
    """Start a stack in a session of its own and wait until it answers.

    Args:
        bundle: The bundle; not needed when there is a ``.mar``.
        mar: An archive made before.
        config: Ports, workers and limits.
        work: Folder for state, logs and temporary files; one stack at a time.
        owner_pid: The stack stops when this process ends.
        timeout_s: Give up after so long.

    Raises:
        ServerError: It did not start, with the reason.
    """
    work.mkdir(parents=True, exist_ok=True)
    state_file, settings = work / STATE, work / "serve-config.json"
    state_file.unlink(missing_ok=True)
    write_json(settings, config.model_dump(mode="json"))
    source = mar if mar is not None else bundle
    command = [sys.executable, "-m", "serving.stack", str(source.resolve()), "--serve-config", str(settings)]
    command += ["--state", str(state_file), "--work", str(work)]
    command += [] if owner_pid is None else ["--owner", str(owner_pid)]
    with (work / LOG).open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=child_environment(),
        )
    return _await_state(process, state_file, work / LOG, timeout_s)


def stop_stack(state: StackState) -> None:
    """Stop a stack and see that nothing of it is left.

    Raises:
        ServerError: A process could not be ended.
    """
    try:
        root = psutil.Process(state.pid)
        processes = tree_of(state.pid) if abs(root.create_time() - state.started) < 1.0 else []
    except psutil.NoSuchProcess:
        processes = []
    left = end_tree(state.pid, STOP_S) if processes else []
    left += kill_all(processes)
    if left:
        raise ServerError(f"processes {left} did not end", "end them by hand")


def smoke_requests(url: str, item: SliceInput, timeout_s: float = REQUEST_S) -> SmokeFigures:
    """One classification and one segmentation through the gateway.

    Args:
        url: The gateway's address.
        item: The slice to send.
        timeout_s: Of each request.

    Raises:
        ServerError: An answer was not what it should be.
    """
    with httpx.Client(base_url=url, timeout=timeout_s, trust_env=False) as client:
        classified, classify_ms = _post(client, "/classify", item)
        segmented, segment_ms = _post(client, "/segment", item)
    return SmokeFigures(
        tumor_probability=classified["tumor_probability"],
        predicted_label=classified["predicted_label"],
        mask_pixels=segmented["tumor_area_pixels"],
        mask_shape=(segmented["height"], segmented["width"]),
        classify_ms=classify_ms,
        segment_ms=segment_ms,
        model_digest=classified["model"]["digest"],
        trained_regions=tuple(segmented["trained_regions"]),
    )


def _post(client: httpx.Client, path: str, item: SliceInput) -> tuple[dict[str, Any], float]:
    buffer = io.BytesIO()
    np.save(buffer, item.image)
    sizes = ",".join(str(size) for size in item.pixel_mm)
    query = {"modalities": ",".join(item.modalities), "pixel_mm": sizes}
    start = time.perf_counter()
    try:
        response = client.post(path, params=query, files={"file": ("slice.npy", buffer.getvalue())})
    except httpx.HTTPError as error:
        raise ServerError(f"{path} did not answer: {error}", "see the server's log") from error
    elapsed_ms = 1e3 * (time.perf_counter() - start)
    if response.status_code != httpx.codes.OK:
        raise ServerError(f"{path} answered {response.status_code}: {response.text[:300]}", "see the server's log")
    answer: dict[str, Any] = response.json()
    return answer, elapsed_ms


def _await_state(process: subprocess.Popen[bytes], state_file: Path, log_file: Path, timeout_s: float) -> StackState:
    deadline = time.monotonic() + timeout_s
    try:
        while not state_file.exists():
            if process.poll() is not None:
                raise ServerError(f"the server did not start: {_reason(log_file)}", f"see {log_file}")
            if time.monotonic() > deadline:
                raise ServerError(f"the server is not ready after {timeout_s:.0f} s", f"see {log_file}")
            time.sleep(POLL_S)
        return StackState.read(state_file)
    except BaseException:
        end_tree(process.pid, STOP_S)
        process.wait()
        raise


def _reason(log_file: Path) -> str:
    """The last error line of the log, else its last line."""
    lines = [line for line in log_file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.partition(" ERROR ")[2].partition(": ")[2] for line in lines if " ERROR " in line]
    return (errors or lines or ["its log is empty"])[-1][-400:]
