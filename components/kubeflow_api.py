"""The API of Kubeflow Pipelines: a client, its errors in plain words, and the state of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from slicewise.errors import ServerError

if TYPE_CHECKING:
    from kfp import Client

PROBE_TIMEOUT_S = 10.0
ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
HERE = "this cluster's Kubeflow Pipelines"
# What Kubeflow lists as tasks beside the pipeline's own: its drivers and the groups.
GROUPS = ("exit-handler-", "condition-", "for-loop-")
PROXY = "kubectl -n kubeflow port-forward svc/ml-pipeline 8888:8888"


class RefusedError(ServerError):
    """Kubeflow understood, and will answer the same when asked again."""


@dataclass(frozen=True)
class TaskState:
    """One task of a run.

    Attributes:
        name: As in the compiled pipeline, or its display name.
        state: In Kubeflow's words, such as ``RUNNING``.
        error: What it says of itself where it failed.
        seconds: How long it took, or None where it has not ended.
        pod: Its pod, or nothing.
    """

    name: str
    state: str
    error: str
    seconds: float | None
    pod: str


@dataclass(frozen=True)
class RunState:
    """A run, and the tasks it has begun.

    Attributes:
        run_id: Kubeflow's id.
        name: Its display name.
        state: In Kubeflow's words.
        error: What Kubeflow says of a failure.
        root: Where artifacts lie; nothing stands for the server's default.
        tasks: In the order in which they were begun.
    """

    run_id: str
    name: str
    state: str
    error: str
    root: str
    tasks: tuple[TaskState, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    @property
    def failed(self) -> TaskState | None:
        """The first task that failed."""
        return next((task for task in self.tasks if task.state == "FAILED"), None)

    @classmethod
    def of(cls, run: Any) -> RunState:
        """The state that a ``V2beta1Run`` tells."""
        details = (run.run_details.task_details if run.run_details else None) or []
        tasks = [_task(detail) for detail in details]
        return cls(
            run_id=run.run_id,
            name=run.display_name or "",
            state=run.state or "PENDING",
            error=(run.error.message or "") if run.error else "",
            root=(run.runtime_config.pipeline_root or "") if run.runtime_config else "",
            tasks=tuple(task for task in tasks if _is_own(task.name)),
        )


def _is_own(name: str) -> bool:
    return bool(name) and not (name in ("root", "executor") or name.endswith("-driver") or name.startswith(GROUPS))


def _task(detail: Any) -> TaskState:
    children = [child.pod_name for child in detail.child_tasks or () if child.pod_name]
    return TaskState(
        name=detail.display_name or "",
        state=detail.state or "PENDING",
        error=(detail.error.message or "") if detail.error else "",
        seconds=_seconds(detail.start_time, detail.end_time),
        pod=detail.pod_name or (children[0] if children else ""),
    )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    # A task that has not ended has the year 1970 for its end.
    return (end - start).total_seconds() if start and end and end >= start else None


def connect(host: str = "", token: str = "", namespace: str = "") -> Client:
    """A client of Kubeflow Pipelines.

    Args:
        host: Its address; empty for the one of the cluster that this process runs in.
        token: A bearer token, or nothing.
        namespace: The user's namespace, where Kubeflow has several users.

    Raises:
        ServerError: It cannot be reached, or takes no token or this one not.
    """
    import kfp

    with sdk_call(host):
        if host:
            _probe(host, token)
        arguments = {"existing_token": token} if token else {}
        if namespace:
            arguments["namespace"] = namespace
        return kfp.Client(host=host or None, **arguments)


def configuration(host: str, token: str) -> Any:
    """The settings of a plain connection that does not try again by itself."""
    import kfp_server_api

    # As the SDK reads an address without a scheme.
    address = (host if host.startswith("http") else f"https://{host}").rstrip("/")
    settings = kfp_server_api.Configuration(host=address)
    settings.retries = False
    if token:
        settings.api_key["authorization"] = token
        settings.api_key_prefix["authorization"] = "Bearer"
    return settings


def _probe(host: str, token: str) -> None:
    """One request: the SDK's own first one is tried for half a minute."""
    import kfp_server_api

    api = kfp_server_api.HealthzServiceApi(kfp_server_api.ApiClient(configuration(host, token)))
    api.healthz_service_get_healthz(_request_timeout=PROBE_TIMEOUT_S)


@contextmanager
def sdk_call(host: str) -> Iterator[None]:
    """``api_errors`` around a call of the SDK, whose own words go to stderr: stdout is for results.

    Raises:
        ServerError: Names the address.
    """
    with redirect_stdout(sys.stderr), api_errors(host):
        yield


@contextmanager
def api_errors(host: str) -> Iterator[None]:
    """Turn what goes wrong with the API into an error with a cure.

    Raises:
        ServerError: Names the address.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    where = host or HERE
    try:
        yield
    except ApiException as error:
        raise _told(where, int(error.status or 0), str(error.body or error.reason or "")) from error
    except (HTTPError, OSError) as error:
        cure = f"check --host and the network; without an ingress: {PROXY}"
        raise ServerError(f"{where} cannot be reached ({type(error).__name__})", cure) from error


def _told(where: str, status: int, body: str) -> ServerError:
    text = _message(body)
    if status == 401:
        return RefusedError(f"{where} refuses the token: missing or expired", "get a new one and give it by --token")
    if status == 429 or (status == 403 and "quota" in text.lower()):
        cure = "end other runs, ask for less in cluster.yaml, or have the namespace's quota raised"
        return RefusedError(f"{where}: quota exceeded: {text}", cure)
    if status == 403:
        cure = "use a namespace and a token that may do this: --namespace, --token"
        return RefusedError(f"{where} does not permit this: {text}", cure)
    if status == 404:
        return RefusedError(
            f"{where} does not know this: {text}", "check the id, and that --host is the Pipelines API"
        )
    if status >= 500:
        cure = "try again; if it stays: kubectl -n kubeflow logs deploy/ml-pipeline"
        return ServerError(f"{where} failed with status {status}: {text}", cure)
    return RefusedError(f"{where} refuses the request with status {status}: {text}", "correct what it names")


def _message(body: str) -> str:
    """What a person needs of an answer's body, in one line."""
    try:
        value = json.loads(body)
    except ValueError:
        value = body
    text = value.get("message") or value.get("error") or body if isinstance(value, dict) else body
    return " ".join(str(text).split())[:300] or "no reason given"


def read_run(client: Client, run_id: str, host: str = "") -> RunState:
    """The state of a run.

    Raises:
        ServerError: There is no such run, or the API fails.
    """
    with sdk_call(host):
        return RunState.of(client.get_run(run_id))
