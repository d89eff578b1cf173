"""The client of a SliceWise server: sync and async, over HTTP and gRPC.

``Client`` and ``AsyncClient`` have the same methods; ``docs/client.md`` has examples that run. The same names are
in ``slicewise.client``.
"""

from serving.client.async_client import AsyncClient
from serving.client.opening import open_model
from serving.client.results import (
    Classification,
    ClassifiedImage,
    Explanation,
    FailedImage,
    Multitask,
    Segmentation,
    SegmentedImage,
    StudyResult,
    UncertainSegmentation,
)
from serving.client.slices import SlicePredictions
from serving.client.sync_client import Client

__all__ = [
    "AsyncClient",
    "Classification",
    "ClassifiedImage",
    "Client",
    "Explanation",
    "FailedImage",
    "Multitask",
    "Segmentation",
    "SegmentedImage",
    "SlicePredictions",
    "StudyResult",
    "UncertainSegmentation",
    "open_model",
]
