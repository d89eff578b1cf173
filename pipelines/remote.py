"""Runs in a cluster: submitted, watched and read through Kubeflow's own client."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.kubeflow_api import RefusedError, RunState, api_errors, configuration, connect, read_run, sdk_call
from pipelines.compiled import check_compiled
from pipelines.graph import leaves
from slicewise.errors import PipelineError, ServerError, UsageError

logger = logging.getLogger(__name__)
POLL_S = 10.0
# Kubeflow's own log server; it follows a pod and reads an archived log alike.
LOG = "/apis/v1alpha1/runs/{run}/nodes/{pod}/log"
SHORT_ERRORS = 12  # a network may be gone for this many polls before a wait gives up


@dataclass(frozen=True)
class Submission:
    """What is to be run, and as what.

    Attributes:
        file: The compiled pipeline.
        name: Of the run.
        parameters: Of the pipeline; what is not named keeps its default.
        experiment: Its group of runs; made where there is none, if ``create_experiment``.
        create_experiment: Whether a missing experiment is made.
        recurring: A cron expression of six fields, or nothing for one run now.
        service_account: Of the pods; empty for the server's default.
        pipeline_root: Where artifacts go; empty for the server's default.
    """

    file: Path
    name: str
    parameters: Mapping[str, Any]
    experiment: str = "slicewise"
    create_experiment: bool = True
    recurring: str = ""
    service_account: str = ""
    pipeline_root: str = ""


class Kubeflow:
    """Kubeflow Pipelines at one address.

    Args:
        host: Its address.
        token: A bearer token, or nothing.
        namespace: The user's namespace, where Kubeflow has several users.

    Raises:
        ServerError: It cannot be reached, or refuses the token.
    """

    def __init__(self, host: str, token: str = "", namespace: str = "") -> None:
        self.host = host.rstrip("/")
        self.namespace = namespace
        self._token = token
        self._client = connect(self.host, token, namespace)

    def submit(self, what: Submission) -> dict[str, str]:
        """Start a run, or put it on a schedule.

        Returns:
            ``run_id`` or ``recurring_run_id``, ``experiment_id`` and ``url``, where to watch it.

        Raises:
            UsageError: The schedule is no cron expression of six fields.
            PipelineError: The file is no sound pipeline.
            ServerError: The API refuses it; says why.
        """
        check_compiled(what.file)
        if what.recurring and len(what.recurring.split()) != 6:
            raise UsageError(
                f"--recurring {what.recurring!r} is no cron expression of six fields",
                "second minute hour day month weekday: '0 0 2 * * 1' is Mondays at two",
            )
        experiment = self._experiment(what)
        common = {
            "experiment_id": experiment,
            "job_name": what.name,
            "pipeline_package_path": str(what.file),
            "params": dict(what.parameters),
            "pipeline_root": what.pipeline_root or None,
            "service_account": what.service_account or None,
        }
        with sdk_call(self.host):
            if what.recurring:
                made = self._client.create_recurring_run(cron_expression=what.recurring, no_catchup=True, **common)
                found = {"recurring_run_id": made.recurring_run_id}
                page = f"recurringrun/details/{made.recurring_run_id}"
            else:
                run = self._client.run_pipeline(**common)
                found = {"run_id": run.run_id}
                page = f"runs/details/{run.run_id}"
        return found | {"experiment_id": experiment, "url": f"{self.host}/#/{page}"}

    def upload(self, file: Path, name: str) -> str:
        """Put a compiled pipeline on the server's list, a new version where it is there already.

        Returns:
            The pipeline's id.
        """
        check_compiled(file)
        with sdk_call(self.host):
            known = self._client.get_pipeline_id(name)
            if known is None:
                made = self._client.upload_pipeline(str(file), pipeline_name=name, namespace=self.namespace or None)
                return str(made.pipeline_id)
            version = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
            self._client.upload_pipeline_version(str(file), version, pipeline_id=known)
        return str(known)

    def _experiment(self, what: Submission) -> str:
        with sdk_call(self.host):
            if what.create_experiment:
                made = self._client.create_experiment(what.experiment, namespace=self.namespace or None)
                return str(made.experiment_id)
        return self.experiment_id(what.experiment)

    def experiment_id(self, name: str) -> str:
        """The id of an experiment.

        Raises:
            ServerError: There is none of that name.
        """
        with sdk_call(self.host):
            try:
                found = self._client.get_experiment(experiment_name=name, namespace=self.namespace or None)
            except ValueError as error:
                cure = "leave out --experiment-must-exist to have it made, or correct the name"
                raise RefusedError(f"{self.host} has no experiment {name!r}", cure) from error
        return str(found.experiment_id)

    def run(self, run_id: str) -> RunState:
        """The state of one run."""
        return read_run(self._client, run_id, self.host)

    def total(self, run_id: str) -> int:
        """How many tasks a run's pipeline has, or 0 where the server does not tell."""
        with sdk_call(self.host):
            spec = self._client.get_run(run_id).pipeline_spec or {}
        spec = spec.get("pipeline_spec", spec)
        return len(leaves(spec)) if spec.get("root") else 0

    def runs(self, experiment: str = "", limit: int = 20) -> list[RunState]:
        """The newest runs, of one experiment or of all."""
        where: dict[str, Any] = {"page_size": limit, "sort_by": "created_at desc"}
        if experiment:
            where["experiment_id"] = self.experiment_id(experiment)
        elif self.namespace:
            where["namespace"] = self.namespace
        with sdk_call(self.host):
            return [RunState.of(run) for run in self._client.list_runs(**where).runs or ()]

    def wait(
        self, run_id: str, tell: Callable[[RunState], None], timeout_s: float = 0.0, poll_s: float = POLL_S
    ) -> RunState:
        """Wait for a run's end.

        A network that fails for a moment does not end the wait; a token that does.

        Args:
            run_id: Which.
            tell: Called with every state read.
            timeout_s: Give up after so long; 0 for never. The run goes on.
            poll_s: How often it is asked.

        Raises:
            PipelineError: The time is over.
            ServerError: The API keeps failing, or refuses.
        """
        start, missed = time.monotonic(), 0
        while True:
            try:
                state, missed = self.run(run_id), 0
            except RefusedError:
                raise
            except ServerError as error:
                missed += 1
                if missed > SHORT_ERRORS:
                    raise
                logger.warning("%s; asked again", error.message)
            else:
                tell(state)
                if state.ended:
                    return state
            if timeout_s and time.monotonic() - start > timeout_s:
                raise PipelineError(f"run {run_id} has not ended after {timeout_s:.0f} s", "it goes on; ask again")
            time.sleep(poll_s)

    def logs(self, run_id: str, task: str) -> Iterator[str]:
        """The lines of a task's log.

        Raises:
            ServerError: There is no such task, it has no pod yet, or its log is gone.
        """
        import kfp_server_api

        tasks = self.run(run_id).tasks
        found = next((item for item in tasks if item.name == task), None)
        if found is None or not found.pod:
            names = ", ".join(item.name for item in tasks if item.pod) or "none yet"
            raise ServerError(f"run {run_id} has no pod of a task {task!r}", f"tasks with a pod: {names}")
        api = kfp_server_api.ApiClient(configuration(self.host, self._token))
        path = LOG.format(run=run_id, pod=found.pod)
        with api_errors(self.host):
            answer = api.call_api(
                path, "GET", auth_settings=["Bearer"], _preload_content=False, _return_http_data_only=True
            )
            for line in answer:
                yield line.decode("utf-8", "replace").rstrip("\n")


def as_json(state: RunState) -> dict[str, Any]:
    """A run's state as plain data."""
    return asdict(state)
