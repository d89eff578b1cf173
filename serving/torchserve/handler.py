"""The TorchServe handler: V1, V2 and bare files, in dynamic batches.

TorchServe takes the only class of this module. Its stock envelopes are not used: they read only the first
request of a batch.
"""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import torch as _torch

from serving.codecs import envelope as _envelope
from serving.torchserve import batch as _batch
from serving.torchserve import engine as _engine
from serving.torchserve import figures as _figures
from serving.torchserve import jobs as _jobs
from serving.torchserve import metrics as _metrics
from slicewise.inference import predictor as _predictor

log = logging.getLogger(__name__)


class SliceWiseHandler:
    """Loads the verified bundle of the archive and answers batches."""

    def initialize(self, context: Any) -> None:
        """Load, verify and warm up the model; TorchServe calls this once in each worker.

        Raises:
            BundleError: A file of the archive does not match its digest.
        """
        properties = context.system_properties
        settings = (context.model_yaml_config or {}).get("handler") or {}
        threads = int(os.environ.get("SLICEWISE_THREADS") or settings.get("threads") or 1)
        gpu = properties.get("gpu_id")
        device = f"cuda:{gpu}" if gpu is not None and _torch.cuda.is_available() else "cpu"
        folder = Path(properties["model_dir"])
        how = _engine.settings_of_worker(settings.get("predictor"))
        # In the server's own temporary folder: its workers measure one after the other, and choose the same engine.
        kept = Path(tempfile.gettempdir())
        self.predictor = _predictor.Predictor.load(folder, device, threads, how, kept)
        self.predictor.warm_up()
        name = str(context.manifest["model"]["modelName"])
        voxels = int(settings.get("max_study_voxels") or _jobs.Served.max_voxels)
        self.served = _jobs.Served(self.predictor.bundle, name, settings.get("version"), voxels)
        log.info("ready on %s with %d threads, bundle %s", device, threads, self.predictor.bundle.digest[:12])

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch, each request with its own status, headers and content type.

        Args:
            data: One mapping for each request, the body under ``body``, ``data`` or a form field's name.
            context: TorchServe's context of this batch.
        """
        requests = [self._request(item, context.get_all_request_header(index)) for index, item in enumerate(data)]
        figures = _figures.BatchFigures()
        replies = _batch.answer(requests, self.predictor, self.served, figures)
        if context.metrics is not None:
            _metrics.emit(context.metrics, self.served.name, figures)
        return [
            _envelope.seal(reply.status, _headers(reply), reply.body)
            if _envelope.HEADERS in item
            else _deliver(reply, index, context)
            for index, (item, reply) in enumerate(zip(data, replies, strict=True))
        ]

    def _request(self, item: dict[str, Any], given: Any) -> tuple[Any, dict[str, str]]:
        if _envelope.HEADERS in item:
            return item.get("body", b""), _envelope.read_headers(item[_envelope.HEADERS])
        body = item.get("body", item.get("data"))
        body = next(iter(item.values()), b"") if body is None else body
        return body, {name.lower(): value for name, value in given.items() if isinstance(value, str)}


def _deliver(reply: _jobs.Reply, index: int, context: Any) -> bytes:
    """Status and headers to TorchServe, which sends them with the body over HTTP."""
    context.set_response_status(reply.status, reply.phrase, index)
    for name, value in reply.headers.items():
        context.set_response_header(index, name, value)
    context.set_response_content_type(index, reply.content_type)
    return reply.body


def _headers(reply: _jobs.Reply) -> dict[str, str]:
    return dict(reply.headers) | {"content-type": reply.content_type}
