"""The client whose methods wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx
from numpy.typing import NDArray

from serving.client import calls, jobs, options, results
from serving.client.calls import Call
from serving.client.files import Image, StudyPaths
from serving.client.refusals import Patience, pause_after, unreachable
from serving.client.settings import ClientSettings
from serving.client.slices import SlicePredictions, asking, stacked
from serving.codecs.v2 import Message
from serving.gateway.rest.schemas import Health, ModelInfo
from serving.gateway.rest.schemas_studies import JobAnswer
from slicewise.errors import InputError

Result = TypeVar("Result")


class Client:
    """A SliceWise server. Connections are pooled; close it, or use it as a context manager. Threads may share it.

    Every method raises ``InputError`` for what the server refuses, ``BackendError`` where it is away or stays busy
    beyond ``patience_s`` (after waiting as long as ``Retry-After`` says), ``DeadlineError`` after ``timeout_s``.

    Args:
        url: The gateway, e.g. ``http://127.0.0.1:8080``.
        grpc_target: ``host:port`` of its gRPC; where it is given, ``predict_slices`` goes there.
        model: The served model's name.
        timeout_s: Of one answer.
        patience_s: How long, in all, to wait for a server that says it is busy.
        headers: Sent along, e.g. ``Authorization``.
    """

    def __init__(
        self,
        url: str,
        *,
        grpc_target: str | None = None,
        model: str = "slicewise",
        timeout_s: float = 120.0,
        patience_s: float = 60.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = ClientSettings(url, grpc_target, model, timeout_s, patience_s, headers or {})
        self._http = httpx.Client(
            base_url=url,
            timeout=self._settings.timeout,
            limits=self._settings.limits,
            headers=self._settings.headers,
            trust_env=False,
        )
        self._grpc: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        if self._grpc is not None:
            self._grpc.close()

    def health(self) -> Health:
        """Whether the model answers; does not wait for it."""
        return self._run(calls.health())

    def ready(self) -> bool:
        """Whether a warm-up inference has passed end to end."""
        return self._run(calls.ready())

    def info(self, version: str | None = None) -> ModelInfo:
        """What the bundle says of the model."""
        return self._run(calls.info(version))

    def classify(self, image: Image, **asked: Unpack[options.SliceOptions]) -> results.Classification:
        """Calibrated class probabilities of one slice."""
        return self._run(calls.classify(image, asked))

    def explain(self, image: Image, **asked: Unpack[options.ExplainOptions]) -> results.Explanation:
        """Where the evidence for tumour lies."""
        return self._run(calls.explain(image, asked))

    def segment(self, image: Image, **asked: Unpack[options.SegmentOptions]) -> results.Segmentation:
        """Class probabilities and masks of one slice."""
        return self._run(calls.segment(image, asked))

    def uncertainty(self, image: Image, **asked: Unpack[options.UncertaintyOptions]) -> results.UncertainSegmentation:
        """Masks of one slice, and how uncertain they are."""
        return self._run(calls.uncertainty(image, asked))

    def multitask(self, image: Image, **asked: Unpack[options.MultitaskOptions]) -> results.Multitask:
        """Classify, and segment where there is tumour."""
        return self._run(calls.multitask(image, asked))

    def classify_batch(
        self, images: Sequence[Image], **asked: Unpack[options.SliceOptions]
    ) -> list[results.ClassifiedImage | results.FailedImage]:
        """Any number of images, each done or failed alone, in order."""
        return [entry for call in calls.classify_batch(images, asked) for entry in self._run(call)]

    def segment_batch(
        self, images: Sequence[Image], **asked: Unpack[options.SegmentOptions]
    ) -> list[results.SegmentedImage | results.FailedImage]:
        """Any number of images, each done or failed alone, in order."""
        return [entry for call in calls.segment_batch(images, asked) for entry in self._run(call)]

    def predict_slices(
        self, images: NDArray[Any] | Sequence[NDArray[Any]], **asked: Unpack[options.V2Options]
    ) -> SlicePredictions:
        """Predict slices ``[N, C, H, W]`` of raw intensities over V2, in binary; exact in every digit."""
        return self.infer_slices(stacked(images), asked)

    def infer_slices(
        self, images: NDArray[Any], asked: Mapping[str, Any], outputs: Sequence[str] = ()
    ) -> SlicePredictions:
        """As ``predict_slices``, with the outputs wanted; ``region_probability`` only comes when it is named."""
        steps = asking(images, asked, outputs)
        try:
            request = next(steps)
            while True:
                try:
                    answer = self._infer(request)
                except InputError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def analyze_study(self, paths: StudyPaths, **asked: Unpack[options.StudyOptions]) -> results.StudyResult:
        """Analyse a whole study and wait for it: files by modality, a file, a folder of DICOM, or a stack."""
        return self._run(calls.analyze_study(paths, asked))

    def submit(self, paths: StudyPaths, **asked: Unpack[options.StudyOptions]) -> JobAnswer:
        """Analyse a whole study in the background; ``wait`` and ``result`` take the ``job_id``."""
        return self._run(calls.submit(paths, asked))

    def job(self, job_id: str) -> JobAnswer:
        """A job's state and progress."""
        return self._run(calls.job(job_id))

    def wait(
        self, job_id: str, timeout_s: float = 3600.0, on_progress: Callable[[JobAnswer], None] | None = None
    ) -> JobAnswer:
        """Wait until a job is done.

        Raises:
            JobStateError: It failed, with the reason.
            DeadlineError: It is not done after ``timeout_s``; it goes on.
        """
        watch = jobs.Watch(timeout_s, self._settings.poll_s, on_progress)
        while True:
            job = self.job(job_id)
            pause_s = watch.pause_s(job)
            if pause_s is None:
                return job
            time.sleep(pause_s)

    def result(self, job_id: str) -> results.StudyResult:
        """The result of a job that is done."""
        return self._run(calls.job_result(job_id))

    def job_mask(self, job_id: str) -> bytes:
        """The mask of a job that is done: ``.nii.gz`` in the input's geometry, BraTS's labels."""
        return self._run(calls.job_file(job_id, jobs.MASK))

    def job_seg(self, job_id: str) -> bytes:
        """The DICOM segmentation of a job that is done, where the input was DICOM."""
        return self._run(calls.job_file(job_id, jobs.SEG))

    def delete_job(self, job_id: str) -> None:
        """Forget a job, its files and its result."""
        self._run(calls.delete_job(job_id))

    def _infer(self, message: Message) -> Message:
        if self._settings.grpc_target is None:
            return self._run(calls.infer(self._settings.model, message))
        if self._grpc is None:
            from serving.client.grpc_channels import GrpcChannel

            self._grpc = GrpcChannel(self._settings)
        return self._grpc.infer(message)  # type: ignore[no-any-return]

    def _run(self, call: Call[Result]) -> Result:
        patience = Patience(self._settings.patience_s)
        while True:
            response = self._send(call)
            pause_s = pause_after(response, call.welcome, patience)
            if pause_s is None:
                return call.outcome(response)
            time.sleep(pause_s)

    def _send(self, call: Call[Any]) -> httpx.Response:
        try:
            return self._http.request(
                call.method,
                call.path,
                params=call.params,
                files=call.files or None,
                content=call.content,
                headers=call.headers,
            )
        except httpx.TimeoutException as error:
            raise self._settings.too_slow(call.path) from error
        except httpx.TransportError as error:
            raise unreachable(error, self._settings.url) from error
