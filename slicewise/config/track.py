"""The section ``train.track``."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from slicewise.config.base import Count, Section

TrackerName = Literal["tensorboard", "mlflow", "wandb"]


class TrackConfig(Section):
    """Where a stage's learning curves go, beside the plain file that is always written.

    Decides nothing about what is learnt. Keys and passwords are no part of it: W&B and MLflow read theirs from
    the environment.

    Attributes:
        trackers: Which tools get the figures, too.
        every_steps: Every so many optimiser steps are written.
        project: The project's name in W&B, the experiment's in MLflow.
        mlflow_uri: A tracking server or database; None keeps a database in the stage's tracking folder.
        wandb_mode: ``offline`` writes files for ``wandb sync`` and makes no connection.
    """

    trackers: tuple[TrackerName, ...] = ()
    every_steps: Count = 1
    project: Annotated[str, Field(min_length=1, pattern=r"^[^/\\#?%:]+$")] = "slicewise"
    mlflow_uri: str | None = None
    wandb_mode: Literal["offline", "online"] = "offline"

    @field_validator("trackers")
    @classmethod
    def _each_once(cls, names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
        if len(set(names)) < len(names):
            raise ValueError("names a tracker twice")
        return names

    @field_validator("mlflow_uri")
    @classmethod
    def _holds_no_password(cls, uri: str | None) -> str | None:
        """The configuration is stored with every run, and an address may carry a password."""
        if uri is not None and "@" in urlsplit(uri).netloc:
            raise ValueError("holds a user; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead")
        return uri
