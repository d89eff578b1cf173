"""From the stored files of an upload to a study's prediction, whoever asked: a request that waits, or a job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.codecs.outputs import has_scores, output_names
from serving.codecs.zips import ZipLimits
from serving.gateway.backend import Backend
from serving.gateway.model import SliceWiseModel
from serving.gateway.rest.asking import Clock
from serving.gateway.rest.parameters import StudyParameters
from serving.gateway.rest.remote_predict import RemotePredict
from serving.gateway.rest.schemas import ModelFields
from serving.gateway.rest.study_files import StoredFile
from serving.gateway.rest.study_reading import Reading, read_upload_study
from slicewise.inference.predictor import PredictOptions
from slicewise.inference.study import StudyPrediction, StudySettings, predict_study
from slicewise.studies.study import Study

ProgressCall = Callable[[int, int], None]
# Of four modalities in float32: the largest body is made for the largest study allowed.
STUDY_VOXEL_BYTES = 16
UNPACKED = 2  # times the largest body: what an archive or a gzip of scans may grow to


@dataclass(frozen=True)
class StudyResult:
    """A study, what the model says of it, and which model."""

    study: Study
    prediction: StudyPrediction
    model: ModelFields


@dataclass(frozen=True)
class StudyLimits:
    """What follows from the largest body allowed.

    Attributes:
        request_bytes: Largest request to the model server.
        max_voxels: Of one modality.
        archive: Of a zip.
    """

    request_bytes: int
    max_voxels: int
    archive: ZipLimits

    @classmethod
    def of(cls, max_request_mb: int) -> StudyLimits:
        """Those for a limit in MB."""
        body = max_request_mb << 20
        # Half a body leaves room for what is around the tensor.
        return cls(body // 2, body // STUDY_VOXEL_BYTES, ZipLimits(unpacked_bytes=UNPACKED * body))


class StudyRunner:
    """Reads and predicts studies.

    Args:
        model: The gateway's model.
        limits: Sizes.
    """

    def __init__(self, model: SliceWiseModel, limits: StudyLimits) -> None:
        self._model = model
        self.limits = limits

    async def run(
        self,
        files: Sequence[StoredFile],
        folder: Path,
        parameters: StudyParameters,
        clock: Clock,
        on_progress: ProgressCall | None = None,
        patience_s: float = 0.0,
    ) -> StudyResult:
        """Read and predict one study; one model version answers all of it.

        Args:
            files: The upload.
            folder: Where they lie.
            parameters: The request's.
            clock: Gets the phases.
            on_progress: Told slices done and slices in all, from another thread.
            patience_s: How long to wait for a busy model server.

        Raises:
            InputError: The files or the study are unusable.
            BackendError: The model server did not answer.
        """
        async with self._model.backend.lease(parameters.version) as backend:
            described = await backend.describe()
            reading = Reading(parameters, str(described["unknown_modality"]), self.limits.max_voxels)
            study = await asyncio.to_thread(read_upload_study, files, folder, reading)
            clock.mark("decode")
            settings = StudySettings.model_validate(described)
            predict = self._remote(backend, described, settings, patience_s)
            options = PredictOptions(threshold=parameters.threshold, conditional=parameters.conditional)
            prediction = await asyncio.to_thread(predict_study, study, predict, settings, options, on_progress)
            clock.mark("backend")
        if predict.model is None:
            raise RuntimeError("a study was predicted and nobody was asked")
        return StudyResult(study, prediction, predict.model)

    def _remote(
        self, backend: Backend, described: dict[str, Any], settings: StudySettings, patience_s: float
    ) -> RemotePredict:
        segment = ("region_probability" if settings.needs_probability else "mask",)
        wanted = output_names(("segment",), scores=has_scores(described), segment=segment)
        return RemotePredict(backend, self._model.name, self.limits.request_bytes, wanted, patience_s)
