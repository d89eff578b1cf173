"""The verbs ``submit`` and ``runs``. Imported at every start of the command line: heavy imports are inside."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slicewise.cli_options import ConfigFile, Json, Mode, Overrides, Sources, emit
from slicewise.config import load_config
from slicewise.errors import PipelineError, UsageError

if TYPE_CHECKING:
    from components.kubeflow_api import RunState
    from pipelines.remote import Kubeflow

RUNS = Path("runs")
Host = Annotated[str, typer.Option(envvar="KFP_HOST", help="Kubeflow Pipelines, http://localhost:8888 say.")]
Token = Annotated[str, typer.Option(envvar="KFP_TOKEN", help="A bearer token; better given by KFP_TOKEN.")]
Namespace = Annotated[
    str, typer.Option(envvar="KFP_NAMESPACE", help="Your namespace, where Kubeflow has several users.")
]
TimeoutMinutes = Annotated[float, typer.Option(help="How long --wait waits; 0 for ever.")]
Poll = Annotated[float, typer.Option(help="Seconds between two questions of --wait.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("submit")(submit)
    app.command("runs")(runs)


def submit(
    host: Host = "",
    source: Sources = None,
    mode: Mode = "baseline",
    config: ConfigFile = None,
    set_: Overrides = None,
    cluster: Annotated[Path | None, typer.Option(help="cluster.yaml: images, GPUs, memory, secrets.")] = None,
    name: Annotated[str, typer.Option(help="The run's name; default slicewise-<mode>-<time>.")] = "",
    experiment: Annotated[str, typer.Option(help="The group of runs it belongs to.")] = "slicewise",
    experiment_must_exist: Annotated[
        bool, typer.Option("--experiment-must-exist", help="Fail rather than make the experiment.")
    ] = False,
    recurring: Annotated[
        str, typer.Option(metavar="CRON", help="A schedule of six fields, '0 0 2 * * 1' say, instead of a run now.")
    ] = "",
    upload: Annotated[bool, typer.Option("--upload", help="Put the pipeline on the server's list as well.")] = False,
    pipeline_root: Annotated[str, typer.Option(help="Where artifacts go, s3://bucket/prefix say.")] = "",
    token: Token = "",
    namespace: Namespace = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until the run has ended; exit 1 where it failed.")
    ] = False,
    timeout_minutes: TimeoutMinutes = 0.0,
    poll_s: Poll = 10.0,
    json: Json = False,
) -> None:
    """Run the pipeline in a Kubeflow cluster, now or on a schedule.

    Example: slicewise submit --host http://localhost:8888 --source s3://scans/brats --cluster cluster.yaml --wait

    Example: slicewise submit --host https://kubeflow.example/pipeline --recurring '0 0 2 * * 1' --experiment weekly
    """
    if wait and recurring:
        raise UsageError("--wait waits for a run, --recurring starts none now", "leave out one of them")
    settings = load_config(mode, config, set_ or [])
    from tempfile import TemporaryDirectory

    from pipelines.cluster import load_cluster
    from pipelines.compile import compile_pipeline
    from pipelines.remote import Kubeflow, Submission

    placed = load_cluster(cluster)
    kubeflow = Kubeflow(_required(host), token, namespace)
    with TemporaryDirectory() as folder:
        file = compile_pipeline(settings, placed, Path(folder) / "slicewise.yaml")
        submission = Submission(
            file=file,
            name=name or f"slicewise-{mode}-{datetime.now().astimezone():%Y%m%d-%H%M%S}",
            parameters={"sources": source} if source else {},
            experiment=experiment,
            create_experiment=not experiment_must_exist,
            recurring=recurring,
            service_account=placed.service_account,
            pipeline_root=pipeline_root,
        )
        result: dict[str, Any] = {"pipeline_id": kubeflow.upload(file, "slicewise")} if upload else {}
        result |= kubeflow.submit(submission)
    if wait:
        sys.stderr.write(f"{result['url']}\n")
        state = _follow(kubeflow, result["run_id"], timeout_minutes, poll_s)
        result["state"] = state.state
        emit(result, as_json=json, text=f"run {state.run_id} {state.state.lower()}")
        _raise_failure(state)
    else:
        emit(result, as_json=json, text=f"{'scheduled' if recurring else 'started'}: {result['url']}")


def runs(
    run: Annotated[str, typer.Argument(help="A run: its id with --host, else its folder. Without it: all.")] = "",
    host: Host = "",
    experiment: Annotated[str, typer.Option(help="Only the runs of this experiment.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200, help="So many of the newest runs.")] = 20,
    logs: Annotated[str, typer.Option(metavar="TASK", help="Print a task's log, 'preprocess' say.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end.")] = False,
    timeout_minutes: TimeoutMinutes = 0.0,
    poll_s: Poll = 10.0,
    token: Token = "",
    namespace: Namespace = "",
    json: Json = False,
) -> None:
    """Show runs: with --host those of a cluster, else those in the folder runs/.

    Example: slicewise runs --host http://localhost:8888 5f1c… --wait

    Example: slicewise runs --host http://localhost:8888 5f1c… --logs 'train: joint'

    Example: slicewise runs
    """
    if not host:
        _local(run, logs, as_json=json)
        return
    from pipelines.remote import Kubeflow, as_json

    kubeflow = Kubeflow(host, token, namespace)
    if not run:
        if logs or wait:
            raise UsageError("--logs and --wait are for one run", "name it: slicewise runs RUN_ID --host …")
        states = kubeflow.runs(experiment, limit)
        text = "\n".join(f"{state.run_id}  {state.state:<10} {state.name}" for state in states) or "no runs"
        emit({"runs": [as_json(state) for state in states]}, as_json=json, text=text)
    elif logs:
        for line in kubeflow.logs(run, logs):
            sys.stdout.write(line + "\n")
    else:
        state = _follow(kubeflow, run, timeout_minutes, poll_s) if wait else kubeflow.run(run)
        total = kubeflow.total(run)
        emit(as_json(state) | {"total": total}, as_json=json, text=table(state, total))
        if wait:
            _raise_failure(state)


def table(state: RunState, total: int) -> str:
    """A run for people: how far it is, then a line for each task."""
    done = sum(task.state in ("SUCCEEDED", "SKIPPED") for task in state.tasks)
    lines = [
        f"{state.name or state.run_id}: {state.state.lower()}, {done} of {max(total, len(state.tasks))} tasks done"
    ]
    for task in state.tasks:
        took = "" if task.seconds is None else f"{task.seconds:.0f} s"
        lines.append(f"  {task.name:<20} {task.state.lower():<10} {took:>8}  {task.error}".rstrip())
    return "\n".join([*lines, *([f"  {state.error}"] if state.error else [])])


def _required(host: str) -> str:
    if not host:
        raise UsageError("no --host", "give the address of Kubeflow Pipelines by --host or KFP_HOST")
    return host


def _follow(kubeflow: Kubeflow, run_id: str, timeout_minutes: float, poll_s: float) -> RunState:
    """Wait for a run, and say on stderr when a task begins or ends."""
    start, shown = time.monotonic(), dict[str, str]()

    def tell(state: RunState) -> None:
        for task in state.tasks:
            if shown.get(task.name) != task.state:
                shown[task.name] = task.state
                minutes, seconds = divmod(int(time.monotonic() - start), 60)
                sys.stderr.write(
                    f"{minutes:2d}:{seconds:02d}  {task.name} {task.state.lower()} {task.error}".rstrip() + "\n"
                )

    return kubeflow.wait(run_id, tell, timeout_minutes * 60, poll_s)


def _raise_failure(state: RunState) -> None:
    """End with code 1 where a run did not succeed.

    Raises:
        PipelineError: Names the task.
    """
    if state.state == "SUCCEEDED":
        return
    task = state.failed
    told = f"{task.name}: {task.error or 'see its log'}" if task else state.error or state.state.lower()
    pod = f" --logs '{task.name}'" if task else ""
    raise PipelineError(f"run {state.run_id} {state.state.lower()}: {told}", f"slicewise runs {state.run_id}{pod}")


def _local(run: str, logs: str, *, as_json: bool) -> None:
    from pipelines.runs import list_runs, read_log

    if logs:
        if not run:
            raise UsageError("--logs is for one run", "name its folder")
        for line in read_log(Path(run), logs):
            sys.stdout.write(line + "\n")
        return
    found = list_runs(Path(run) if run else RUNS)
    text = "\n".join(f"{item.folder}  {item.status:<8} {item.done} stages done" for item in found) or "no runs here"
    emit({"runs": [asdict(item) for item in found]}, as_json=as_json, text=text)
