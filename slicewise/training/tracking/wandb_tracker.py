"""Weights & Biases: files for ``wandb sync``, or a live connection."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from typing import Any

from slicewise.config.track import TrackConfig
from slicewise.errors import ConfigError
from slicewise.training.tracking.base import FINISHED, Place, Tracker, finite, missing
from slicewise.training.tracking.run_file import read_run, write_run

RUN_FILE = "wandb-run.json"
KEY_VARIABLE = "WANDB_API_KEY"
WAIT_S = 30.0
# Nothing but the figures and the provenance leaves this process: not the machine's and the user's names, its
# hardware and commands, the standard output, nor errors of W&B's own.
SETTINGS: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "-",
    "username": "-",
    "email": "-",
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "init_timeout": WAIT_S,
    "finish_timeout": WAIT_S,
    "login_timeout": WAIT_S,
}


class WandbTracker(Tracker):
    """Steps and epochs are figures of their own, so that the curves run over them and not over W&B's own count.

    Offline, a kill loses what W&B has not yet written, and how much that is cannot be known: the killed process's
    files are deleted, and the run is written again under its own id.

    Raises:
        ConfigError: W&B is not installed, or ``online`` has no key.
    """

    def __init__(self, config: TrackConfig, place: Place) -> None:
        if config.wandb_mode == "online" and not os.environ.get(KEY_VARIABLE):
            # Without it W&B would ask at the terminal.
            cure = f"set {KEY_VARIABLE} in the environment, or train.track.wandb_mode=offline"
            raise ConfigError(f"the tracker wandb is online and {KEY_VARIABLE} is not set", cure)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError as error:
            raise missing("wandb") from error
        target = f"{config.wandb_mode} {config.project}"
        known = read_run(place.folder / RUN_FILE, target) if place.resumed else None
        run_id = known or secrets.token_hex(8)
        if config.wandb_mode == "offline":
            for folder in (place.folder / "wandb").glob(f"offline-run-*-{run_id}"):
                shutil.rmtree(folder)
        self._run: Any = wandb.init(
            project=config.project,
            name=place.name,
            id=run_id,
            resume="allow",
            mode=config.wandb_mode,
            dir=place.folder,
            config=dict(place.provenance),
            settings=wandb.Settings(**SETTINGS),
        )
        write_run(place.folder / RUN_FILE, target, run_id)
        # Online, a run that goes on brings its last figures with it; they are not sent again.
        self._reached = {kind: int(self._run.summary.get(kind) or 0) for kind in ("step", "epoch")}
        for kind in self._reached:
            self._run.define_metric(kind)
            self._run.define_metric(f"{kind}/*", step_metric=kind)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Send the figures, unless the run has them."""
        if step > self._reached["step"]:
            self._run.log({"step": step, **finite(figures, "step/")})

    def epoch(self, epoch: int, figures: Mapping[str, float | None]) -> None:
        """Send the figures, unless the run has them."""
        if epoch > self._reached["epoch"]:
            self._run.log({"epoch": epoch, **finite(figures, "epoch/")})

    def close(self, status: str) -> None:
        """End the run; what could not be sent stays in its files, for ``wandb sync``."""
        self._run.finish(exit_code=0 if status == FINISHED else 1)
