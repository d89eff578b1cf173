"""What one stage works on, and whether there is anything in it to learn."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicewise.config import ModelConfig, StageName, TrainConfig
from slicewise.config.optimise import CheckpointConfig
from slicewise.errors import TrainingError
from slicewise.files import sha256_json
from slicewise.slices.batches import SliceData
from slicewise.slices.store import SliceStore


@dataclass(frozen=True)
class StageJob:
    """What one stage works on.

    Attributes:
        stage: Its name.
        model: The section ``model``.
        train: The section ``train``.
        seed: The run's seed.
        store: The slice store's folder.
        split: The folder of ``split.json``.
        init: The folder of the stage before, or None for random weights.
        checkpoints: Where checkpoints lie; a job that finds its own there goes on from it.
        tracking: Where learning curves go; None puts them beside the checkpoints.
    """

    stage: StageName
    model: ModelConfig
    train: TrainConfig
    seed: int
    store: Path
    split: Path
    init: Path | None
    checkpoints: Path
    tracking: Path | None = None

    @property
    def curves(self) -> Path:
        """The folder of learning curves."""
        return self.tracking or self.checkpoints.with_name("tracking-" + self.checkpoints.name)

    def place_seed(self, *place: int) -> int:
        """A seed of this run and stage for an epoch, or for one of its batches."""
        words = "/".join(map(str, (self.seed, self.stage, *place)))
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:6], "little")

    def fingerprint(
        self, store: SliceStore, data: SliceData, val: SliceData, before: dict[str, Any] | None, world: int = 1
    ) -> str:
        """Digest of all that decides the stage's outcome; how often it is saved and who watches do not."""
        parts = (
            self.stage,
            self.seed,
            self.model.model_dump(mode="json"),
            self.train.model_dump(mode="json", exclude={*CheckpointConfig.model_fields, "track"}),
            [
                # Classes and selection can change while the images stay the same.
                study.model_dump(include={"key", "content_xxh3", "label_xxh3", "known_regions", "slices"})
                for study in store.studies.values()
            ],
            [list(data.keys), list(val.keys)],
            None if before is None else before["fingerprint"],
            world,
        )
        return sha256_json(parts)


def nothing_to_learn(data: SliceData, val: SliceData, tasks: tuple[str, ...]) -> str:
    """Why a stage with these tasks has nothing to do, or an empty string.

    Raises:
        TrainingError: There is nothing to learn from for any stage.
    """
    classes = {value for value in data.tumour() if value is not None}
    if not len(data) or not len(val):
        raise TrainingError("the training or validation side has no slices", "give more studies")
    if not data.has_masks and len(classes) < 2:
        raise TrainingError(
            "nothing to learn: no study has a mask, and the slices are all of one class",
            "add a source with masks, or images of both classes",
        )
    if not tasks:
        return "train.tasks switches its tasks off"
    if tasks == ("segment",) and not data.has_masks:
        return "no training study has a mask"
    if tasks == ("classify",) and len(classes) < 2:
        return "all training slices are of one class"
    return ""
