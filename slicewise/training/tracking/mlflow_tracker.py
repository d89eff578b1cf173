"""MLflow: a tracking server, or a database in the tracking folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from slicewise.config.track import TrackConfig
from slicewise.training.tracking.base import FAILED, FINISHED, KILLED, Place, Tracker, finite, missing
from slicewise.training.tracking.run_file import read_run, write_run

RUN_FILE = "mlflow-run.json"
SEND_EVERY_S = 5.0
# MLflow's own limits.
METRICS_AT_ONCE = 1000
PARAMS_AT_ONCE = 100
VALUE_CHARS = 5000
STATUS = {FINISHED: "FINISHED", FAILED: "FAILED", KILLED: "KILLED"}
ENVIRONMENT = {
    # By itself MLflow reports how it is used.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Standard output is for the command's own result.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # By itself MLflow waits for minutes for a server that is away, and training with it.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MlflowTracker(Tracker):
    """Sends figures every few seconds, as one request takes longer than a small network's step.

    Raises:
        ConfigError: MLflow is not installed.
    """

    def __init__(self, config: TrackConfig, place: Place) -> None:
        for key, value in ENVIRONMENT.items():
            os.environ.setdefault(key, value)
        try:
            import alembic  # noqa: F401 - the database's; the slim MLflow does not ask for it
            import sqlalchemy  # noqa: F401
            from mlflow import entities
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise missing("mlflow") from error
        self._entities: Any = entities
        uri = config.mlflow_uri or f"sqlite:///{(place.folder / 'mlflow.db').resolve()}"
        self._client: Any = MlflowClient(uri)
        self._waiting: dict[tuple[str, int], Any] = {}
        self._sent_at = time.monotonic()
        target = f"{config.mlflow_uri or 'local'} {config.project}"
        run = read_run(place.folder / RUN_FILE, target) if place.resumed else None
        self._run = (run and self._continued(run)) or self._begun(config, place)
        write_run(place.folder / RUN_FILE, target, self._run)
        self._describe(place)
        self._reached = {kind: self._last(kind) for kind in ("step", "epoch")}

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep the figures and, every few seconds, send what is kept."""
        if time.monotonic() - self._sent_at >= SEND_EVERY_S:
            self._send()
        self._keep("step", step, figures)

    def epoch(self, epoch: int, figures: Mapping[str, float | None]) -> None:
        """Send the figures and all that is kept."""
        self._keep("epoch", epoch, figures)
        self._send()

    def close(self, status: str) -> None:
        """Send what is left and end the run."""
        self._send()
        self._client.set_terminated(self._run, STATUS[status])

    def _keep(self, kind: str, number: int, figures: Mapping[str, float | None]) -> None:
        # MLflow cannot take points back: those that the run has are not sent again.
        if number <= self._reached[kind]:
            return
        now = int(time.time() * 1000)
        for key, value in finite(figures, f"{kind}/").items():
            self._waiting[key, number] = self._entities.Metric(key, value, now, number)

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        for keys in _groups(list(self._waiting), METRICS_AT_ONCE):
            self._client.log_batch(self._run, metrics=[self._waiting[key] for key in keys])
            for key in keys:
                del self._waiting[key]

    def _continued(self, run: str) -> str | None:
        """Open an earlier run again; None if the server does not know it (any more)."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(run, status="RUNNING")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run

    def _begun(self, config: TrackConfig, place: Place) -> str:
        """Begin a run and store the configuration as its parameters."""
        experiment = self._client.get_experiment_by_name(config.project)
        number = self._client.create_experiment(config.project) if experiment is None else experiment.experiment_id
        run = str(self._client.create_run(number, run_name=place.name).info.run_id)
        known = _flat(place.provenance.get("configuration", {}))
        for keys in _groups(list(known), PARAMS_AT_ONCE):
            self._client.log_batch(run, params=[self._entities.Param(key, known[key]) for key in keys])
        return run

    def _describe(self, place: Place) -> None:
        """Store the provenance as tags; a run that goes on has the latest process's."""
        rest = {key: value for key, value in place.provenance.items() if key != "configuration"}
        tags = [self._entities.RunTag(key, value) for key, value in _flat(rest).items()]
        self._client.log_batch(self._run, tags=tags[:PARAMS_AT_ONCE])

    def _last(self, kind: str) -> int:
        """The last step or epoch that the run has."""
        names = [key for key in self._client.get_run(self._run).data.metrics if key.startswith(f"{kind}/")]
        history = (point.step for key in names for point in self._client.get_metric_history(self._run, key))
        return max(history, default=0)


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested values as ``a.b`` → text."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            found[f"{above}{key}"] = text[:VALUE_CHARS]
    return found


def _groups(keys: list[Any], size: int) -> Iterator[list[Any]]:
    for first in range(0, len(keys), size):
        yield keys[first : first + size]
