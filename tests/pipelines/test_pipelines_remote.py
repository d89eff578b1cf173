"""``slicewise submit`` and ``slicewise runs`` against a server that speaks the Kubeflow Pipelines API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubeflow_server import Kubeflow as Server
from kubeflow_server import serve, task
from typer.testing import CliRunner, Result

from components.summarise.stage import run as summarise
from pipelines.cluster import ClusterConfig
from pipelines.compile import compile_pipeline
from pipelines.remote import Kubeflow, Submission
from serving.ports import free_port
from slicewise.cli import build_app
from slicewise.config import load_config
from slicewise.errors import PipelineError, ServerError, SliceWiseError, UsageError


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(Server()) as state:
        yield state


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_pipeline(load_config(), ClusterConfig(), tmp_path_factory.mktemp("c") / "p.yaml")


def call(*words: str, token: str = "") -> Result:
    return CliRunner().invoke(build_app(), list(words), env={"KFP_TOKEN": token})


def finish(*states: list[dict[str, Any]], last: str = "SUCCEEDED") -> Any:
    """Every time a run is read it is one step further."""
    waiting = list(states)

    def step(run: dict[str, Any]) -> None:
        if waiting:
            run["run_details"] = {"task_details": waiting.pop(0)}
            run["state"] = "RUNNING" if waiting else last

    return step


def test_submit_starts_a_run_with_account_parameters_and_experiment(
    server: Server, compiled: Path, tmp_path: Path
) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("service_account: pipeline-runner\ngpu_count: 2\n")
    words = ["submit", "--host", server.url, "--cluster", str(cluster), "--experiment", "weekly", "--name", "first"]
    done = call(*words, "--source", "s3://scans/brats", "--pipeline-root", "s3://runs/x", "--upload", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    run = server.runs[result["run_id"]]
    assert result["url"] == f"{server.url}/#/runs/details/{result['run_id']}"
    assert (run["display_name"], run["service_account"]) == ("first", "pipeline-runner")
    assert run["runtime_config"]["parameters"] == {"sources": ["s3://scans/brats"]}
    assert run["runtime_config"]["pipeline_root"] == "s3://runs/x"
    assert server.experiments[run["experiment_id"]]["display_name"] == "weekly"
    spec = run["pipeline_spec"]["pipeline_spec"]
    assert spec["root"]["inputDefinitions"]["parameters"]["train"]["defaultValue"]["processes"] == 2
    assert "kubernetes" in run["pipeline_spec"]["platform_spec"]["platforms"]
    assert [item["display_name"] for item in server.pipelines.values()] == ["slicewise"]
    # Again: the experiment is found, and the pipeline gets a version.
    kubeflow = Kubeflow(server.url)
    kubeflow.upload(compiled, "slicewise")
    kubeflow.submit(submission(compiled, experiment="weekly"))
    assert (len(server.experiments), len(server.pipelines), len(server.versions)) == (1, 1, 1)


def test_a_schedule_is_a_recurring_run(server: Server) -> None:
    done = call("submit", "--host", server.url, "--recurring", "0 0 2 * * 1", "--json")
    assert done.exit_code == 0, done.output
    (made,) = server.recurring.values()
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 2 * * 1"
    assert json.loads(done.stdout)["recurring_run_id"] == made["recurring_run_id"]
    assert not server.runs


def test_wait_tells_progress_and_survives_a_short_fault(server: Server, compiled: Path) -> None:
    first = [task("root", "RUNNING"), task("download-driver", "SUCCEEDED"), task("download", "RUNNING", "pod-1")]
    second = [task("download", "SUCCEEDED", "pod-1"), task("exit-handler-1", "RUNNING"), task("split", "SUCCEEDED")]
    server.progress = finish(first, second)
    kubeflow = Kubeflow(server.url)
    run_id = kubeflow.submit(submission(compiled))["run_id"]
    server.broken = 2
    told: list[list[str]] = []
    state = kubeflow.wait(run_id, lambda now: told.append([f"{t.name} {t.state}" for t in now.tasks]), poll_s=0.01)
    assert state.state == "SUCCEEDED"
    assert told == [["download RUNNING"], ["download SUCCEEDED", "split SUCCEEDED"]]
    assert [t.seconds for t in state.tasks] == [5.0, 5.0]
    with pytest.raises(PipelineError, match="has not ended after"):
        server.progress = lambda run: run.update(state="RUNNING")
        kubeflow.wait(run_id, lambda now: None, timeout_s=0.05, poll_s=0.01)


def submission(file: Path, **changes: Any) -> Submission:
    return Submission(**({"file": file, "name": "x", "parameters": {}} | changes))


def test_a_failed_run_exits_1_and_names_task_and_reason(server: Server) -> None:
    server.progress = finish([task("train: joint", "FAILED", "pod-9", "loss is not finite")], last="FAILED")
    server.logs["pod-9"] = "line one\nline two\n"
    done = call("submit", "--host", server.url, "--wait", "--poll-s", "0.01")
    assert isinstance(done.exception, PipelineError)
    assert "train: joint: loss is not finite" in str(done.exception)
    (run_id,) = server.runs
    assert f"slicewise runs {run_id} --logs 'train: joint'" in str(done.exception)
    shown = call("runs", run_id, "--host", server.url)
    assert "failed, 0 of 12 tasks done" in shown.stdout
    assert "loss is not finite" in shown.stdout
    logs = call("runs", run_id, "--host", server.url, "--logs", "train: joint")
    assert logs.stdout == "line one\nline two\n"
    listed = json.loads(call("runs", "--host", server.url, "--json").stdout)["runs"]
    assert [item["run_id"] for item in listed] == [run_id]
    server.logs.clear()
    gone = call("runs", run_id, "--host", server.url, "--logs", "train: joint").exception
    assert isinstance(gone, ServerError)
    none = call("runs", run_id, "--host", server.url, "--logs", "gate").exception
    assert "tasks with a pod: train: joint" in str(none)


@pytest.mark.parametrize(
    ("fault", "message", "cure"),
    [
        ((403, "exceeded quota: compute-resources"), "quota exceeded: exceeded quota", "cluster.yaml"),
        ((403, "User cannot create runs"), "does not permit this: User cannot", "--namespace"),
        ((429, "too many runs"), "quota exceeded", "end other runs"),
        ((400, "Invalid pipeline spec"), "refuses the request with status 400: Invalid", "correct"),
        ((503, "database is down"), "failed with status 503: database is down", "try again"),
    ],
)
def test_refusals_are_named_with_a_cure(
    server: Server, compiled: Path, fault: tuple[int, str], message: str, cure: str
) -> None:
    kubeflow = Kubeflow(server.url)
    server.fault = fault
    with pytest.raises(ServerError) as caught:
        kubeflow.submit(submission(compiled))
    assert message in caught.value.message
    assert cure in caught.value.cure
    assert server.url in caught.value.message
    assert not server.runs


def test_a_token_is_sent_and_an_expired_one_is_named(server: Server) -> None:
    server.token = "good"
    assert call("submit", "--host", server.url, token="good").exit_code == 0
    error = call("submit", "--host", server.url, token="old").exception
    assert isinstance(error, ServerError)
    assert "missing or expired" in error.message
    assert "--token" in error.cure
    assert "old" not in str(error)


def test_a_token_that_expires_ends_the_wait(server: Server, compiled: Path) -> None:
    server.token = "good"
    kubeflow = Kubeflow(server.url, "good")
    run_id = kubeflow.submit(submission(compiled))["run_id"]

    def expire(state: Any) -> None:
        server.token = "new"

    with pytest.raises(ServerError, match="missing or expired"):
        kubeflow.wait(run_id, expire, poll_s=0.01)


def test_nobody_there_is_named_at_once() -> None:
    error = call("submit", "--host", f"http://127.0.0.1:{free_port()}").exception
    assert isinstance(error, ServerError)
    assert "cannot be reached" in error.message
    assert "port-forward" in error.cure


def test_what_is_missing_or_wrong_is_named(server: Server, compiled: Path) -> None:
    kubeflow = Kubeflow(server.url)
    with pytest.raises(ServerError, match="no experiment 'nightly'"):
        kubeflow.submit(submission(compiled, experiment="nightly", create_experiment=False))
    unknown = call("runs", "no-such-run", "--host", server.url).exception
    assert isinstance(unknown, ServerError)
    assert "Run no-such-run not found" in unknown.message
    assert isinstance(call("submit").exception, UsageError)
    with pytest.raises(UsageError, match="six fields"):
        kubeflow.submit(submission(compiled, recurring="every day"))


def test_the_summary_asks_the_cluster_for_the_failed_task(
    server: Server, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = Kubeflow(server.url).submit(submission(compiled))["run_id"]
    tasks = [task("download", "SUCCEEDED"), task("preprocess", "FAILED", error="no space | left")]
    server.progress = lambda run: run.update(state="RUNNING", run_details={"task_details": tasks})
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    monkeypatch.setenv("KFP_RUN_ID", run_id)
    status = SimpleNamespace(state="FAILED", pipeline_task_name="exit-handler-1", error_message="", error_code=2)
    summarise(status, "", SimpleNamespace(path=str(tmp_path / "summary.md")))
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("# SliceWise run failed")
    assert f"Run `{run_id}`" in text
    assert "**preprocess failed**: no space \\| left" in text
    assert "| download | done | 5.0 |" in text


def test_the_summary_is_written_where_the_cluster_cannot_be_asked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    monkeypatch.setenv("KFP_RUN_ID", "gone")
    status = SimpleNamespace(state="FAILED", pipeline_task_name="stages", error_message="OOMKilled", error_code=2)
    summarise(status, "", SimpleNamespace(path=str(tmp_path / "summary.md")))
    assert "**stages failed**: OOMKilled" in (tmp_path / "summary.md").read_text()


def test_local_runs_are_listed_and_their_logs_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.runs import Run

    monkeypatch.chdir(tmp_path)
    run = Run.create(tmp_path / "runs" / "one", load_config(), ["phantom"])
    (run.folder / "pipeline.log").write_text("1 - INFO - Executing task 'split'\na\n2 - Executing task 'gate'\nb\n")
    listed = json.loads(call("runs", "--json").stdout)["runs"]
    assert [(item["folder"], item["status"]) for item in listed] == [("runs/one", "running")]
    assert call("runs", "runs/one", "--logs", "gate").stdout == "2 - Executing task 'gate'\nb\n"
    error = call("runs", "runs/one", "--logs", "train").exception
    assert isinstance(error, SliceWiseError)
    assert "tasks there: split, gate" in str(error)
