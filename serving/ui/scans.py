"""The page's routes that look at an upload: pictures of slices and volumes. Nothing sent is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import Field

from serving.answers import MOST_NATS
from serving.codecs.images import decode_file
from serving.codecs.masks import quick_gzip
from serving.gateway.model import SliceWiseModel
from serving.gateway.rest.asking import ask
from serving.gateway.rest.parameters import SliceParameters, StudyParameters, UncertaintyParameters, read
from serving.gateway.rest.slice_files import opened
from serving.gateway.rest.study_files import store_items
from serving.gateway.rest.study_reading import Reading, read_upload_study
from serving.gateway.rest.study_run import StudyLimits
from serving.gateway.rest.uploads import Item, only, read_upload
from serving.gateway.rest.workplace import Workplace
from serving.ui.pictures import grey_levels, grey_png, label_png
from serving.ui.replies import told_reply
from slicewise.errors import InputError
from slicewise.studies.study import Study

PNG, BYTES = "image/png", "application/octet-stream"


class PreviewParameters(SliceParameters):
    """``/ui/api/preview``."""

    most: int = Field(0, ge=0, le=4096, description="The longer side of the picture in pixels; 0 leaves it.")


class DoubtParameters(StudyParameters):
    """``/ui/api/doubt``."""

    index: int = Field(ge=0, description="The slice, from 0.")


class ScanRoutes:
    """Pictures of uploads.

    Args:
        model: The gateway's model.
        limits: Sizes of studies.
        workplace: Where uploads lie while they are read.
    """

    def __init__(self, model: SliceWiseModel, limits: StudyLimits, workplace: Workplace) -> None:
        self._model = model
        self._limits = limits
        self._workplace = workplace

    def add_to(self, router: APIRouter) -> None:
        """Add them."""
        routes = {"preview": self.preview, "labels": self.labels, "volume": self.volume, "doubt": self.doubt}
        for name, endpoint in routes.items():
            router.add_api_route(f"/ui/api/{name}", endpoint, methods=["POST"])

    async def preview(self, request: Request) -> Response:
        """A slice as the gateway reads it, its channels as grey levels: browsers know neither DICOM nor NIfTI."""
        upload = await read_upload(request)
        item, parameters = only(upload.items), read(PreviewParameters, upload.parameters)

        def draw() -> Response:
            planes, told = _planes(item, parameters)
            names = list(told.modalities or ())
            facts = {"modalities": names if len(names) == len(planes) else [], "pixel_mm": told.pixel_mm}
            return told_reply(grey_png(planes, parameters.most), PNG, facts | {"channels": len(planes)})

        return await asyncio.to_thread(draw)

    async def labels(self, request: Request) -> Response:
        """A mask's values, and how they were read."""
        upload = await read_upload(request)
        item, parameters = only(upload.items), read(SliceParameters, upload.parameters)
        content, way = await asyncio.to_thread(lambda: label_png(_planes(item, parameters)[0][0]))
        return told_reply(content, PNG, {"read_as": way})

    async def volume(self, request: Request) -> Response:
        """All modalities of a study as grey levels, uint8 ``[C, Z, H, W]`` in display orientation."""
        async with self._study(request, StudyParameters) as (study, _):
            channels = await asyncio.to_thread(lambda: quick_gzip(_grey_channels(study)))
        told: dict[str, Any] = {"shape": study.channels[0].shape, "modalities": study.modalities}
        told |= {"spacing_mm": study.spacing_mm, "spacing_known": study.spacing_known}
        return told_reply(channels, BYTES, told, **{"Content-Encoding": "gzip"})

    async def doubt(self, request: Request) -> Response:
        """The uncertainty of one slice of a study, as a map from 0 to ln 2 nats."""
        async with self._study(request, DoubtParameters) as (study, parameters):
            image, sizes = _slice(study, parameters.index), study.spacing_mm[1:]
            asked = UncertaintyParameters(modalities=",".join(study.modalities), pixel_mm=sizes)
            item = Item(f"slice {parameters.index}", "", image)
            async with self._model.backend.lease(parameters.version) as backend:
                answer = await ask(backend, self._model.name, item, asked, "classify,segment,uncertainty")
        found = answer.prediction.uncertainty
        if found is None:
            raise InputError("the model gives no uncertainty", "serve a bundle trained with dropout")
        levels = np.round(np.clip(found / MOST_NATS, 0, 1) * 255).astype(np.uint8)
        return told_reply(levels.tobytes(), BYTES, {"shape": levels.shape, "mean_nats": float(found.mean())})

    @asynccontextmanager
    async def _study(self, request: Request, kind: type[StudyParameters]) -> AsyncIterator[tuple[Study, Any]]:
        """The uploaded study; its files are gone afterwards."""
        async with self._workplace.folder() as folder:
            upload = await read_upload(request, many=True)
            parameters = read(kind, upload.parameters)
            files = await asyncio.to_thread(store_items, upload.items, folder, self._limits.archive)
            del upload
            described = await self._model.backend.describe()
            reading = Reading(parameters, str(described["unknown_modality"]), self._limits.max_voxels)
            yield await asyncio.to_thread(read_upload_study, files, folder, reading), parameters


def _planes(item: Item, parameters: SliceParameters) -> tuple[NDArray[Any], SliceParameters]:
    """A slice's channels ``[C, H, W]``, and the parameters with what its file tells."""
    item, parameters = opened(item, parameters)
    content = item.content
    if isinstance(content, InputError):
        raise content
    return decode_file(content, item.label) if isinstance(content, bytes) else content, parameters


def _grey_channels(study: Study) -> bytes:
    return b"".join(grey_levels(np.ascontiguousarray(channel)).tobytes() for channel in study.channels)


def _slice(study: Study, index: int) -> NDArray[np.float32]:
    n_slices = len(study.channels[0])
    if index >= n_slices:
        raise InputError(f"index: {index} of {n_slices} slices", f"send 0 to {n_slices - 1}")
    return np.stack([channel[index] for channel in study.channels]).astype(np.float32)
