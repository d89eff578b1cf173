"""What the client's methods give back: the server's answers, with their maps as numpy arrays."""

from __future__ import annotations

import base64
import io
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.gateway.rest import schemas_slices as schemas
from serving.gateway.rest.schemas_studies import StudyAnswer
from serving.status import BackendError, error_from
from slicewise.config import REGIONS
from slicewise.errors import InputError
from slicewise.files import atomic_path

Mask = NDArray[np.uint8]
Map = NDArray[np.float32]


class _Masked(schemas.SegmentFields):
    """Masks and maps, decoded when they are looked at."""

    @cached_property
    def mask(self) -> Mask:
        """``[3, H, W]`` of 0 and 1: WT, TC, ET."""
        planes = [_pixels(str(self.masks[name])) for name in REGIONS]
        return (np.stack(planes) > 0).astype(np.uint8)

    @cached_property
    def probability(self) -> Map | None:
        """``[3, H, W]`` calibrated probability of WT, TC, ET; None unless ``probability_map`` was asked for."""
        maps = self.probability_maps
        return None if maps is None else np.stack([_array(maps[name]) for name in REGIONS])

    @property
    def overlay_png(self) -> bytes | None:
        """A PNG of the slice with the masks' outlines; None unless ``overlay`` was asked for."""
        return None if self.overlay is None else base64.b64decode(self.overlay)


class Classification(schemas.ClassifyAnswer):
    """Of ``classify``."""


class Explanation(schemas.GradcamAnswer):
    """Of ``explain``."""

    @cached_property
    def evidence(self) -> Map:
        """``[H, W]`` in 0 to 1, in steps of 1/255: where the evidence for tumour lies."""
        return _pixels(self.gradcam_base64).astype(np.float32) / np.float32(255)

    @property
    def overlay_png(self) -> bytes:
        """A PNG of the map over the slice."""
        return base64.b64decode(self.gradcam_overlay)


class Segmentation(_Masked, schemas.SegmentAnswer):
    """Of ``segment``."""


class UncertainSegmentation(_Masked, schemas.UncertaintyAnswer):
    """Of ``uncertainty``; maps ``[H, W]`` of the whole tumour in nats, None where nothing was segmented."""

    @cached_property
    def entropy(self) -> Map | None:
        """Predictive entropy."""
        return _maybe(self.uncertainty.map)

    @cached_property
    def epistemic(self) -> Map | None:
        """What more training data could settle."""
        return _maybe(self.uncertainty.epistemic_map)

    @cached_property
    def aleatoric(self) -> Map | None:
        """What no training data could settle."""
        return _maybe(self.uncertainty.aleatoric_map)


class Multitask(_Masked, schemas.MultitaskAnswer):
    """Of ``multitask``."""


class ClassifiedImage(schemas.ClassifyEntry):
    """One image of ``classify_batch``."""


class SegmentedImage(_Masked, schemas.SegmentEntry):
    """One image of ``segment_batch``."""


class FailedImage(schemas.FailedEntry):
    """One image of a batch that failed alone."""

    @property
    def exception(self) -> InputError | BackendError:
        """The error as it would have been raised for a single image."""
        return error_from(self.error.model_dump())


class StudyResult(StudyAnswer):
    """Of ``analyze_study`` and of a job."""

    @property
    def mask_bytes(self) -> bytes | None:
        """The mask as ``.nii.gz`` in the input's geometry, BraTS's labels; None where it was not sent."""
        return None if self.mask is None or self.mask_format != "nifti" else base64.b64decode(self.mask)

    def save_mask(self, path: Path) -> None:
        """Write the mask as ``.nii.gz``.

        Raises:
            ValueError: It was not sent: a job's mask is fetched by ``job_mask``.
        """
        content = self.mask_bytes
        if content is None:
            raise ValueError("this result came without its mask; a job's is fetched by job_mask(job_id)")
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)


def _pixels(text: str) -> Mask:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def _array(text: str) -> Map:
    array: NDArray[Any] = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    return array.astype(np.float32, copy=False)


def _maybe(text: str | None) -> Map | None:
    return None if text is None else _array(text)
