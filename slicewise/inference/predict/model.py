"""The model behind ``slicewise predict``: here in this process; ``serving.client`` has the one behind a URL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from slicewise.errors import InputError
from slicewise.inference.bundle import find_bundle
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput
from slicewise.inference.study import SlicePredict, StudySettings


class ModelFacts(BaseModel):
    """Which model answers.

    Attributes:
        name: Its name.
        version: Its version.
        digest: SHA-256 of the bundle's manifest.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    digest: str


class PredictModel(Protocol):
    """What predicts slices."""

    @property
    def facts(self) -> ModelFacts:
        """Which model it is."""
        ...

    @property
    def settings(self) -> StudySettings:
        """What a study needs of it."""
        ...

    def slices(self, *, for_study: bool) -> SlicePredict:
        """A function that predicts a batch of slices, which may differ in size and modalities.

        Args:
            for_study: Whether the predictions are for ``predict_study``, which may need the regions' probability.
        """
        ...

    def require_tasks(self, tasks: Sequence[str]) -> None:
        """Refuse tasks that this way to the model has no answer for.

        Raises:
            UsageError: Names the task and the cure.
        """
        ...


class LocalModel:
    """A bundle's Predictor in this process.

    Args:
        predictor: The Predictor.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        meta, digest = predictor.bundle.meta, predictor.bundle.digest
        self.facts = ModelFacts(name=meta.name, version=meta.model_version, digest=digest)
        self.settings = StudySettings.of(meta)

    @classmethod
    def load(cls, bundle: Path, device: str = "auto") -> LocalModel:
        """Verify and load a bundle, or the one in a run's folder.

        Raises:
            BundleError: Missing, damaged or of another format.
        """
        return cls(Predictor.load(find_bundle(bundle), device))

    def slices(self, *, for_study: bool) -> SlicePredict:
        """See ``PredictModel``: the Predictor gives everything in any case."""
        return self._predict

    def require_tasks(self, tasks: Sequence[str]) -> None:
        """See ``PredictModel``: it knows them all."""

    def _predict(self, items: Sequence[SliceInput], options: PredictOptions) -> Sequence[Prediction | InputError]:
        return self._predictor.predict(items, options)
