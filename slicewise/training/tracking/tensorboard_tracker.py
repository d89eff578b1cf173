"""TensorBoard event files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from slicewise.training.tracking.base import Place, Tracker, finite, missing

FLUSH_S = 5


class TensorBoardTracker(Tracker):
    """Writes ``tensorboard/step`` and ``tensorboard/epoch``, whose curves run over steps and over epochs.

    Their files only grow: whoever opens them says that all before is void, and a stage that goes on writes its
    curves again from the plain file, as what TensorBoard had not yet written was lost in the kill.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, place: Place) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing("tensorboard") from error
        writer: Any = SummaryWriter
        root = place.folder / "tensorboard"
        self._steps = writer(root / "step", purge_step=0, flush_secs=FLUSH_S)
        self._epochs = writer(root / "epoch", purge_step=0, flush_secs=FLUSH_S)
        text = json.dumps(dict(place.provenance), indent=2, default=str)
        self._epochs.add_text("provenance", f"```json\n{text}\n```", 0)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        for key, value in finite(figures, "step/").items():
            self._steps.add_scalar(key, value, step)

    def epoch(self, epoch: int, figures: Mapping[str, float | None]) -> None:
        """Add one point to each curve, and write all out."""
        for key, value in finite(figures, "epoch/").items():
            self._epochs.add_scalar(key, value, epoch)
        self._steps.flush()
        self._epochs.flush()

    def close(self, status: str) -> None:
        """Write what is left."""
        self._steps.close()
        self._epochs.close()
