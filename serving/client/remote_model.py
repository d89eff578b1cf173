"""The model behind a URL, for ``slicewise predict`` and ``explain``: slices travel over V2, or REST."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from serving.client.slices import SlicePredictions
from serving.client.sync_client import Client
from serving.codecs.outputs import has_scores, output_names
from serving.status import UnknownVersionError
from slicewise.errors import InputError, ServerError
from slicewise.inference.predict.model import ModelFacts
from slicewise.inference.predictor import Prediction, PredictOptions, SliceInput
from slicewise.inference.study import SlicePredict, StudySettings

Outcome = Prediction | InputError
RUN_AGAIN = "run again: what the former model has finished is done anew"


class ServedModel(ABC):
    """A server's model, whatever way the slices travel; a ``PredictModel``.

    Args:
        client: The way there.

    Raises:
        BackendError: The server is away.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        info = client.info()
        self.facts = ModelFacts(name=info.name, version=info.version, digest=info.digest)
        self.settings = StudySettings.model_validate(info.model_dump())
        self._scores = has_scores(info.model_extra or {})

    def slices(self, *, for_study: bool) -> SlicePredict:
        """See ``PredictModel``."""
        return functools.partial(self._predict, probability=for_study and self.settings.needs_probability)

    @abstractmethod
    def require_tasks(self, tasks: Sequence[str]) -> None:
        """See ``PredictModel``."""

    @abstractmethod
    def _predict(
        self, items: Sequence[SliceInput], options: PredictOptions, *, probability: bool
    ) -> Sequence[Outcome]:
        """Predict slices; the outcomes in the items' order."""


class RemoteModel(ServedModel):
    """A server's model over V2; one version of it, for as long as this object is used."""

    def require_tasks(self, tasks: Sequence[str]) -> None:
        """See ``PredictModel``: V2 knows them all."""

    def _predict(
        self, items: Sequence[SliceInput], options: PredictOptions, *, probability: bool
    ) -> Sequence[Outcome]:
        """Slices that fit one tensor go together."""
        return in_groups(items, lambda group: self._ask(group, options, probability))

    def _ask(self, items: Sequence[SliceInput], options: PredictOptions, probability: bool) -> Sequence[Outcome]:
        asked: dict[str, Any] = {
            "tasks": options.tasks,
            "modalities": items[0].modalities,
            "pixel_mm": items[0].pixel_mm,
            "threshold": options.threshold,
            "n_mc_samples": options.n_mc_samples,
            "use_tta": options.use_tta,
            "explain_method": options.explain_method,
            "version": self.facts.version,
        }
        images = np.stack([item.image for item in items])
        try:
            answer = self._client.infer_slices(images, asked, self._outputs(options, probability))
        except UnknownVersionError as error:
            raise _changed(self.facts) from error
        return self._checked(answer)

    def _outputs(self, options: PredictOptions, probability: bool) -> tuple[str, ...]:
        segment = ("region_probability" if probability else "mask",)
        return output_names(options.tasks, scores=self._scores, segment=segment)

    def _checked(self, answer: SlicePredictions) -> Sequence[Outcome]:
        """One run is one model's: a server that was started anew with another is told apart by its digest."""
        if answer.model_digest and answer.model_digest != self.facts.digest:
            raise _changed(self.facts)
        return answer.outcomes


def in_groups(
    items: Sequence[SliceInput],
    ask: Callable[[Sequence[SliceInput]], Sequence[Outcome]],
    key: Callable[[SliceInput], Any] | None = None,
) -> list[Outcome]:
    """Ask for slices of one kind together; the outcomes come back in the items' order.

    Args:
        items: Slices of any kinds.
        ask: Predicts slices of one kind.
        key: The kind; by default shape, number type, modalities and spacing.
    """
    kind = key or (lambda item: (item.image.shape, item.image.dtype.str, item.modalities, item.pixel_mm))
    groups: dict[Any, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(kind(item), []).append(index)
    outcomes: dict[int, Outcome] = {}
    for indices in groups.values():
        outcomes |= dict(zip(indices, ask([items[index] for index in indices]), strict=True))
    return [outcomes[index] for index in range(len(items))]


def _changed(facts: ModelFacts) -> ServerError:
    return ServerError(f"the server no longer serves version {facts.version} ({facts.digest[:12]})", RUN_AGAIN)
