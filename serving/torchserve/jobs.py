"""One request inside a TorchServe batch: read it, and write its answer."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.codecs import v1, v2, v2_model
from serving.codecs.budget import Budget, check_count
from serving.codecs.envelope import PROBE_HEADER
from serving.codecs.files import Decoded, decode_slices
from serving.codecs.images import kind_of
from serving.codecs.parameters import Parameters, read_parameters
from serving.status import UnsupportedMediaError, error_body, status_of
from slicewise import RESEARCH_USE
from slicewise.config import ServeConfig
from slicewise.errors import InputError
from slicewise.inference.bundle import Bundle
from slicewise.inference.predictor import Prediction, PredictOptions, SliceInput

JSON = "application/json"
KINDS = "PNG, JPEG, npy, npz, NIfTI or DICOM"
PARAMETERS_HEADER = "x-slicewise-params"

Outcome = Prediction | InputError


@dataclass(frozen=True)
class Reply:
    """One answer, ready for the wire."""

    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    phrase: str = ""
    code: str = ""


@dataclass(frozen=True)
class Served:
    """A bundle as it is served.

    Attributes:
        bundle: The bundle.
        name: The model's name to callers.
        version: The version's name to callers; None takes the bundle's own.
        max_voxels: The largest study allowed, in voxels of one modality.
    """

    bundle: Bundle
    name: str
    version: str | None = None
    max_voxels: int = ServeConfig().max_study_voxels

    @property
    def served_version(self) -> str:
        """The version that answers tell."""
        return self.version or self.bundle.meta.model_version

    def budget(self) -> Budget:
        """What one request may unpack to: such a study with all the model's modalities."""
        return Budget(self.max_voxels * len(self.bundle.meta.preprocessing.modalities))


@dataclass(frozen=True)
class Job:
    """One request: its slices, and how its answer is written.

    Attributes:
        items: Slices, or what is wrong with them, in the request's order.
        options: What is asked for.
        write: Makes the reply of the items' outcomes.
        unread: What is wrong with parts of the request that are not among the items.
        counted: Whether monitoring counts it; the gateway's own probes are left out.
    """

    items: Sequence[SliceInput | InputError]
    options: PredictOptions
    write: Callable[[Sequence[Outcome]], Reply]
    unread: Sequence[InputError] = ()
    counted: bool = True


def failure(error: BaseException) -> Reply:
    """The reply of a request that failed as a whole."""
    status = status_of(error)
    return Reply(orjson.dumps(error_body(error)), status=status.http, phrase=status.phrase, code=status.code)


def read_job(body: Any, headers: Mapping[str, str], model: Served) -> Job:
    """Read a request; see ``_read``."""
    job = _read(body, headers, model)
    return dataclasses.replace(job, counted=False) if PROBE_HEADER in headers else job


def _read(body: Any, headers: Mapping[str, str], model: Served) -> Job:
    """A V1, V2 JSON, V2 binary or bare file request.

    Args:
        body: Bytes, or JSON already parsed.
        headers: The request's headers, names in lower case.
        model: For the preprocessing's parameters and the model's name.

    Raises:
        InputError: The request as a whole is unusable; names the field.
    """
    length = headers.get(v2.LENGTH_HEADER.lower())
    if isinstance(body, str):
        body = body.encode()
    if isinstance(body, bytearray | memoryview):
        body = bytes(body)
    if isinstance(body, bytes):
        if length is not None:
            return _v2_job(body, length, model)
        if kind_of(body) is not None:
            return _file_job(body, headers, model)
        if body.lstrip()[:1] not in (b"{", b"["):
            raise UnsupportedMediaError("the body is of no known kind", f"send JSON or a file: {KINDS}")
        body = v2.parse_json(body)
    if not isinstance(body, dict):
        raise InputError("the body must be a JSON object", "send 'instances' (V1) or 'inputs' (V2)")
    if "describe" in body:
        return Job((), PredictOptions(), lambda _: Reply(orjson.dumps(describe(model))), counted=False)
    return _v2_job(body, None, model) if "inputs" in body else _v1_job(body, model)


def describe(model: Served) -> dict[str, Any]:
    """What a caller may know of the model."""
    meta = model.bundle.meta
    return {
        "name": model.name,
        "version": model.served_version,
        "digest": model.bundle.digest,
        "created": meta.created,
        "modalities": list(meta.preprocessing.modalities),
        "unknown_modality": meta.preprocessing.unknown_modality,
        "size": meta.preprocessing.size,
        "regions": list(meta.regions),
        "trained_regions": list(meta.trained_regions),
        "preset": meta.architecture.preset,
        "preprocessing": meta.preprocessing.model_dump(mode="json"),
        "calibration": meta.calibration.model_dump(mode="json"),
        "postprocess": meta.postprocess.model_dump(mode="json"),
        "ood": meta.ood.model_dump(mode="json"),
        "metrics": meta.metrics,
        "synthetic": meta.synthetic,
        "sources": list(meta.sources),
        "data_digest": meta.data_digest,
        "research_use": RESEARCH_USE,
    }


def _v1_job(body: Mapping[str, Any], model: Served) -> Job:
    parameters = _parameters(body.get("parameters"))
    budget, config = model.budget(), model.bundle.meta.preprocessing
    given = v1.instances(body)
    check_count(len(given), "instances")
    read = [v1.decode_instance(instance, index, parameters, config, budget) for index, instance in enumerate(given)]
    counts = [len(source.slices) if isinstance(source, Decoded) else 0 for source in read]
    items = [item for source in read if isinstance(source, Decoded) for item in source.slices]

    def write(outcomes: Sequence[Outcome]) -> Reply:
        left = iter(outcomes)
        answers = [
            v1.Answered(source, list(itertools.islice(left, count)))
            for source, count in zip(read, counts, strict=True)
        ]
        return Reply(v1.encode(answers))

    return Job(items, parameters.options, write, [source for source in read if isinstance(source, InputError)])


def _v2_job(body: bytes | Mapping[str, Any], length: str | None, model: Served) -> Job:
    request = v2.parse(body, length, "inputs")
    parameters = read_parameters(request.parameters)
    items = v2_model.read_items(request, parameters, model.bundle.meta.preprocessing, model.budget())
    names = {"name": model.name, "version": model.served_version, "digest": model.bundle.digest}

    def write(outcomes: Sequence[Outcome]) -> Reply:
        # A request in which nothing went well has failed; one bad item among good ones is told in 'error'.
        if all(isinstance(outcome, InputError) for outcome in outcomes):
            return failure(next(item for item in outcomes if isinstance(item, InputError)))
        answer = v2_model.build_answer(outcomes, request, names)
        content, header = v2.write(answer, "outputs", request.binary)
        if header is None:
            return Reply(content)
        return Reply(content, v2.BINARY, {v2.LENGTH_HEADER: str(header)})

    return Job(items, parameters.options, write)


def _file_job(body: bytes, headers: Mapping[str, str], model: Served) -> Job:
    text = headers.get(PARAMETERS_HEADER)
    parameters = _parameters(v2.parse_json(text.encode()) if text else None)
    decoded = decode_slices(body, "image", parameters, model.bundle.meta.preprocessing, model.budget())

    def write(outcomes: Sequence[Outcome]) -> Reply:
        if not decoded.is_volume and isinstance(outcomes[0], InputError):
            return failure(outcomes[0])
        return Reply(orjson.dumps(v1.fields_of(v1.Answered(decoded, outcomes))))

    return Job(decoded.slices, parameters.options, write)


def _parameters(value: Any) -> Parameters:
    if value is not None and not isinstance(value, dict):
        raise InputError("parameters must be a JSON object", 'send {"threshold": 0.5}')
    return read_parameters(value or {})
