"""Slices as arrays over V2: what is asked, and how an answer is put together, whatever carries it.

``asking`` is a generator: it yields requests and is sent their answers, so that the sync and the async client drive
the same code.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serving.client.options import as_words
from serving.codecs.v2 import Message
from serving.status import UnknownVersionError
from slicewise.errors import InputError, TooLargeError

if TYPE_CHECKING:
    from slicewise.inference.predictor import Prediction

# Of a few slices that fail together each is asked alone, to learn which one is bad and why.
FEW = 8


@dataclass(frozen=True)
class SlicePredictions:
    """What ``predict_slices`` gives.

    Attributes:
        outcomes: One for each slice: the prediction, or why it failed.
        model_version: Of the model that answered; empty where every slice failed.
        model_digest: Of its bundle.
    """

    outcomes: tuple[Prediction | InputError, ...]
    model_version: str = ""
    model_digest: str = ""

    def followed_by(self, other: SlicePredictions) -> SlicePredictions:
        """Both, in order."""
        told = self if self.model_digest else other
        return SlicePredictions(self.outcomes + other.outcomes, told.model_version, told.model_digest)


Steps = Generator[Message, Message, SlicePredictions]


def asking(images: NDArray[Any], options: Mapping[str, Any], outputs: Sequence[str] = ()) -> Steps:
    """Predict slices; more than the server takes at once go in halves.

    Args:
        images: ``[N, C, H, W]`` raw intensities.
        options: ``V2Options``.
        outputs: The outputs wanted; empty for all that the tasks give.

    Raises:
        InputError: ``images`` is of another shape, or what is wrong is no slice's own.
    """
    if images.ndim != 4 or 0 in images.shape or images.dtype.kind not in "biuf":
        message = f"images has {images.dtype} {list(images.shape)}"
        raise InputError(message, "give numbers [slices, channels, height, width]")
    given = dict(options)
    version = str(given.pop("version", ""))
    parameters = as_words(given)
    return (yield from _ask(images, Message({}, parameters, model_version=version, wanted=tuple(outputs))))


def _ask(images: NDArray[Any], frame: Message) -> Steps:
    from serving.codecs.v2_answer import read_predictions

    request = Message({"image": images}, frame.parameters, model_version=frame.model_version, wanted=frame.wanted)
    try:
        answer = yield request
    except UnknownVersionError:
        raise
    except InputError as error:
        if len(images) > 1 and (isinstance(error, TooLargeError) or len(images) <= FEW):
            half = len(images) // 2
            first = yield from _ask(images[:half], frame)
            second = yield from _ask(images[half:], frame)
            return first.followed_by(second)
        return SlicePredictions((error,) * len(images))
    digest = str(answer.parameters.get("model_digest", ""))
    return SlicePredictions(tuple(read_predictions(answer)), answer.model_version, digest)


def stacked(images: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Slices ``[C, H, W]`` of one shape as ``[N, C, H, W]``.

    Raises:
        InputError: They differ in shape.
    """
    if isinstance(images, np.ndarray):
        return images
    shapes = {np.shape(image) for image in images}
    if len(shapes) != 1:
        raise InputError(f"images have {len(shapes)} shapes", "give slices of one shape, one or more")
    return np.stack(images)
