"""Every request of the client, as data: the sync and the async client only differ in how they send it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from serving.client import results
from serving.client.files import Image, Part, StudyPaths, image_part, study_parts
from serving.client.options import as_words
from serving.client.refusals import OK, refusal
from serving.codecs import v2
from serving.gateway.rest.schemas import Health, ModelInfo
from serving.gateway.rest.schemas_studies import JobAnswer
from serving.status import BackendError

Result = TypeVar("Result")
Record = TypeVar("Record", bound=BaseModel)
Options = Mapping[str, Any]
# Masks are exact and small as PNG; maps would lose their last digits.
MAPS = {"mask_format": "png", "map_format": "npy"}
CLASSIFIED_AT_ONCE, SEGMENTED_AT_ONCE = 100, 50


@dataclass(frozen=True)
class Call(Generic[Result]):
    """One request and the way to read its answer.

    Attributes:
        method: HTTP method.
        path: Below the server's address.
        read: Reads a successful answer.
        params: The query.
        files: The multipart form; else ``content`` is the body.
        content: The body.
        headers: Beyond the usual.
        welcome: Statuses that ``read`` understands.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], Result]
    params: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Part] = ()
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    welcome: frozenset[int] = OK

    def outcome(self, response: httpx.Response) -> Result:
        """The result.

        Raises:
            InputError: The server refused the request.
            BackendError: The server is busy or away, or answered what cannot be read.
        """
        if response.status_code not in self.welcome:
            raise refusal(response)
        try:
            return self.read(response)
        except (ValidationError, ValueError, KeyError) as error:
            message = f"{self.path} gave an answer that this client does not understand"
            raise BackendError(message, "install the client of the server's version") from error


def health() -> Call[Health]:
    """``GET /healthz``; "unavailable" is an answer, too."""
    return Call("GET", "/healthz", _as(Health), welcome=OK | {503})


def ready() -> Call[bool]:
    """``GET /v2/health/ready``."""
    welcome = OK | {400, 503}
    return Call("GET", "/v2/health/ready", lambda response: response.is_success, welcome=welcome)


def info(version: str | None) -> Call[ModelInfo]:
    """``GET /model/info``."""
    return Call("GET", "/model/info", _as(ModelInfo), as_words({"version": version}))


def classify(image: Image, options: Options) -> Call[results.Classification]:
    """``POST /classify``."""
    return _post("/classify", image, options, results.Classification)


def explain(image: Image, options: Options) -> Call[results.Explanation]:
    """``POST /classify/gradcam``."""
    return _post("/classify/gradcam", image, options, results.Explanation)


def segment(image: Image, options: Options) -> Call[results.Segmentation]:
    """``POST /segment``."""
    return _post("/segment", image, {**options, **MAPS}, results.Segmentation)


def uncertainty(image: Image, options: Options) -> Call[results.UncertainSegmentation]:
    """``POST /segment/uncertainty``."""
    return _post("/segment/uncertainty", image, {**options, **MAPS}, results.UncertainSegmentation)


def multitask(image: Image, options: Options) -> Call[results.Multitask]:
    """``POST /predict_multitask``."""
    return _post("/predict_multitask", image, {"overlay": False, **options, **MAPS}, results.Multitask)


def classify_batch(
    images: Sequence[Image], options: Options
) -> list[Call[list[results.ClassifiedImage | results.FailedImage]]]:
    """``POST /classify/batch``, as often as the images need it."""
    read = _entries(results.ClassifiedImage)
    return _batches("/classify/batch", images, CLASSIFIED_AT_ONCE, as_words(options), read)


def segment_batch(
    images: Sequence[Image], options: Options
) -> list[Call[list[results.SegmentedImage | results.FailedImage]]]:
    """``POST /segment/batch``, as often as the images need it."""
    read = _entries(results.SegmentedImage)
    return _batches("/segment/batch", images, SEGMENTED_AT_ONCE, as_words({**options, **MAPS}), read)


def analyze_study(paths: StudyPaths, options: Options) -> Call[results.StudyResult]:
    """``POST /patient/analyze_stack``, with the mask."""
    params = as_words({**options, "mask_format": "nifti"})
    return Call("POST", "/patient/analyze_stack", _as(results.StudyResult), params, study_parts(paths))


def submit(paths: StudyPaths, options: Options) -> Call[JobAnswer]:
    """``POST /predict/async``."""
    return Call("POST", "/predict/async", _as(JobAnswer), as_words(options), study_parts(paths))


def job(job_id: str) -> Call[JobAnswer]:
    """``GET /jobs/{id}``."""
    return Call("GET", f"/jobs/{job_id}", _as(JobAnswer))


def job_result(job_id: str) -> Call[results.StudyResult]:
    """``GET /jobs/{id}/result``."""
    return Call("GET", f"/jobs/{job_id}/result", _as(results.StudyResult))


def job_file(job_id: str, name: str) -> Call[bytes]:
    """``GET /jobs/{id}/mask.nii.gz`` or ``seg.dcm``."""
    return Call("GET", f"/jobs/{job_id}/{name}", lambda response: response.content)


def delete_job(job_id: str) -> Call[None]:
    """``DELETE /jobs/{id}``."""
    return Call("DELETE", f"/jobs/{job_id}", lambda _: None)


def infer(model: str, message: v2.Message) -> Call[v2.Message]:
    """``POST /v2/models/{model}/infer`` in binary."""
    body, length = v2.write(message, "inputs", binary=True)
    version = f"/versions/{message.model_version}" if message.model_version else ""
    headers = {v2.LENGTH_HEADER: str(length), "content-type": v2.BINARY}
    path = f"/v2/models/{model}{version}/infer"
    return Call("POST", path, _message, content=body, headers=headers)


def _message(response: httpx.Response) -> v2.Message:
    return v2.parse(response.content, response.headers.get(v2.LENGTH_HEADER), "outputs")


def _as(kind: type[Record]) -> Callable[[httpx.Response], Record]:
    return lambda response: kind.model_validate_json(response.content)


def _post(path: str, image: Image, options: Options, kind: type[Record]) -> Call[Record]:
    return Call("POST", path, _as(kind), as_words(options), (image_part(image),))


def _entries(kind: type[Record]) -> Callable[[httpx.Response], list[Record | results.FailedImage]]:
    def read(response: httpx.Response) -> list[Record | results.FailedImage]:
        entries = response.json()["results"]
        return [(results.FailedImage if "error" in one else kind).model_validate(one) for one in entries]

    return read


def _batches(
    path: str,
    images: Sequence[Image],
    at_once: int,
    params: Mapping[str, str],
    read: Callable[[httpx.Response], Result],
) -> list[Call[Result]]:
    parts = [image_part(image, "files", index) for index, image in enumerate(images)]
    starts = range(0, len(parts), at_once)
    return [Call("POST", path, read, params, tuple(parts[start : start + at_once])) for start in starts]
