"""Learning curves: the plain file, the three tools, and going on after a kill."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewise.config.load import validate
from slicewise.config.track import TrackConfig
from slicewise.errors import ConfigError
from slicewise.training.tracking import (
    METRICS,
    PlainTracker,
    Tracker,
    TrackingError,
    epoch_figures,
    open_trackers,
    read_metrics,
    smoothed_losses,
)

STEPS = 5
EPOCHS = 3
ALL = ("tensorboard", "mlflow", "wandb")
PROVENANCE = {"seed": 3, "packages": {"torch": "2"}, "configuration": {"model": {"preset": "small"}, "list": [1, 2]}}


def needs(*packages: str) -> pytest.MarkDecorator:
    absent = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)} (slicewise[tracking])")


tensorboard = needs("tensorboard")
mlflow = needs("mlflow", "sqlalchemy", "alembic")
wandb = needs("wandb")


def learn(tracker: Tracker, step: int = 0, epoch: int = 0, stop: int = STEPS * EPOCHS) -> None:
    """What a stage of 3 epochs with 5 steps tells, from where it goes on until ``stop`` steps."""
    while epoch < EPOCHS:
        while step < STEPS * (epoch + 1):
            if step == stop:
                return
            step += 1
            tracker.step(step, {"loss": 1 / step, "grad": math.nan if step == 2 else 1.0})
        epoch += 1
        tracker.epoch(epoch, {"epoch": epoch, "val_dice": epoch / 4, "val_auc": None})


def run(config: TrackConfig, folder: Path, step: int = 0, epoch: int = 0) -> None:
    with open_trackers(config, folder, "joint", PROVENANCE, step, epoch) as tracker:
        learn(tracker, step, epoch)


class TestPlain:
    def test_lines(self, tmp_path: Path) -> None:
        run(TrackConfig(), tmp_path)
        lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
        assert lines[0] == {"kind": "step", "step": 1, "loss": 1.0, "grad": 1.0}
        assert lines[1]["grad"] is None
        assert lines[STEPS] == {"kind": "epoch", "epoch": 1, "val_dice": 0.25, "val_auc": None}
        assert [line["kind"] for line in lines] == (["step"] * STEPS + ["epoch"]) * EPOCHS
        assert [path.name for path in tmp_path.iterdir()] == [METRICS]

    def test_every_so_many_steps_keeps_the_beat_when_resumed(self, tmp_path: Path) -> None:
        run(TrackConfig(every_steps=4), tmp_path, 6, 1)
        assert [r["step"] for r in read_metrics(tmp_path / METRICS) if r["kind"] == "step"] == [8, 12]

    def test_a_line_is_there_at_once(self, tmp_path: Path) -> None:
        with open_trackers(TrackConfig(), tmp_path, "joint", {}) as tracker:
            tracker.step(1, {"loss": 2.0})
            assert read_metrics(tmp_path / METRICS) == [{"kind": "step", "step": 1, "loss": 2.0}]

    def test_a_stage_that_begins_anew_has_a_new_file(self, tmp_path: Path) -> None:
        run(TrackConfig(), tmp_path)
        before = (tmp_path / METRICS).read_bytes()
        run(TrackConfig(), tmp_path)
        assert (tmp_path / METRICS).read_bytes() == before

    @given(data=st.data(), every=st.integers(1, 4))
    def test_a_killed_stage_leaves_the_same_file(self, data: st.DataObject, every: int) -> None:
        """Killed any number of times, at any byte after the checkpoint that it goes on from."""
        config = TrackConfig(every_steps=every)
        with tempfile.TemporaryDirectory() as name:
            whole, other = Path(name, "whole"), Path(name, "other")
            run(config, whole)
            run(config, other)
            expected = (whole / METRICS).read_bytes()
            for _ in range(data.draw(st.integers(1, 3))):
                step = data.draw(st.integers(0, STEPS * EPOCHS))
                full = step // STEPS
                # A checkpoint of an epoch's last step may come before the epoch's own.
                epoch = data.draw(st.sampled_from([full, full - 1])) if full and step % STEPS == 0 else full
                lines = expected.splitlines(keepends=True)
                kept = [line for line in lines if self.within(json.loads(line), step, epoch)]
                first = sum(map(len, kept))
                end = data.draw(st.integers(first, len(expected)))
                (other / METRICS).write_bytes(expected[:end])
                PlainTracker(other, step, epoch).close("killed")
                assert (other / METRICS).read_bytes() == expected[:first]
                (other / METRICS).write_bytes(expected[:end])
                run(config, other, step, epoch)
                assert (other / METRICS).read_bytes() == expected
            assert [path.name for path in other.iterdir()] == [METRICS]

    @staticmethod
    def within(record: dict[str, Any], step: int, epoch: int) -> bool:
        return bool(record[record["kind"]] <= {"step": step, "epoch": epoch}[record["kind"]])

    @given(content=st.binary(max_size=200), step=st.integers(0, 3))
    def test_whatever_the_file_holds_a_stage_goes_on(self, content: bytes, step: int) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name, METRICS)
            path.write_bytes(content + b'\n{"kind":"step","step":1}\n[]\n{"kind":"step","step":true}\n{"kind":"x"}\n')
            PlainTracker(Path(name), step, 0).close("finished")
            assert [record["step"] for record in read_metrics(path)] == ([1] if step else [])

    @given(st.dictionaries(st.text(), st.floats() | st.none()))
    def test_figures_of_any_name_and_size_come_back(self, figures: dict[str, float | None]) -> None:
        with tempfile.TemporaryDirectory() as name:
            tracker = PlainTracker(Path(name))
            tracker.epoch(4, figures)
            tracker.close("finished")
            (record,) = read_metrics(Path(name, METRICS))
        known = {k: v if v is not None and math.isfinite(v) else None for k, v in figures.items()}
        assert record == {**known, "kind": "epoch", "epoch": 4}

    def test_a_folder_that_cannot_be_made_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(TrackingError, match=r"metrics\.jsonl.*free space"):
            PlainTracker(tmp_path / "file" / "below")

    def test_a_full_disk_is_an_error(self, tmp_path: Path) -> None:
        resource = pytest.importorskip("resource", reason="no limits on this system")
        assert resource
        code = f"""
import resource
from pathlib import Path
from slicewise.config.track import TrackConfig
from slicewise.training.tracking import TrackingError, open_trackers
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    with open_trackers(TrackConfig(), Path({str(tmp_path)!r}), "joint", {{}}) as tracker:
        for step in range(1, 99):
            tracker.step(step, {{"loss": 1.0}})
except TrackingError as error:
    print(error)
"""
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "metrics.jsonl" in answer.stdout
        assert "free space" in answer.stdout
        assert [record["step"] for record in read_metrics(tmp_path / METRICS)] == [1, 2, 3, 4]


class TestRead:
    def test_a_half_line_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / METRICS).write_text('{"kind":"step","step":1,"loss":2.0}\n{"kind":"step","st')
        assert read_metrics(tmp_path / METRICS) == [{"kind": "step", "step": 1, "loss": 2.0}]

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(TrackingError, match="nothing"):
            read_metrics(tmp_path / "nothing")

    def test_smoothing(self) -> None:
        """By hand: means 0.5·2 and 0.5·1 + 0.5·4 over 0.5 and 0.75."""
        records = [
            {"kind": "step", "step": 1, "loss": 2.0},
            {"kind": "epoch", "epoch": 1, "loss": 9.0},
            {"kind": "step", "step": 2, "loss": None},
            {"kind": "step", "step": 3, "loss": 4.0},
        ]
        assert smoothed_losses(records, weight=0.5) == [(1, 2.0), (3, pytest.approx(2.5 / 0.75))]
        assert smoothed_losses(records, weight=0.0) == [(1, 2.0), (3, 4.0)]
        assert smoothed_losses([]) == []
        assert epoch_figures(records, "loss") == [(1, 9.0)]

    @given(st.integers(1, 300), st.integers(2, 50), st.floats(0, 0.99), st.floats(-10, 10))
    def test_a_constant_stays_and_points_are_few(self, count: int, most: int, weight: float, value: float) -> None:
        records = [{"kind": "step", "step": step, "loss": value} for step in range(1, count + 1)]
        points = smoothed_losses(records, weight=weight, most=most)
        steps = [step for step, _ in points]
        assert len(steps) == min(most, count)
        assert steps == sorted(set(steps))
        assert (steps[0], steps[-1]) == (1, count)
        assert [mean for _, mean in points] == pytest.approx([value] * len(points), abs=1e-9)

    @pytest.mark.parametrize("wrong", [{"weight": 1.0}, {"weight": -0.1}, {"most": 1}])
    def test_wrong_words(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="must be"):
            smoothed_losses([], **wrong)


class TestConfig:
    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"trackers": ["tensorboard", "tensorboard"]}, "twice"),
            ({"trackers": ["neptune"]}, "trackers"),
            ({"every_steps": 0}, "every_steps"),
            ({"mlflow_uri": "https://me:secret@example.org"}, "MLFLOW_TRACKING_PASSWORD"),
            ({"project": "a/b"}, "project"),
            ({"wandb_key": "x"}, "unknown key"),
        ],
    )
    def test_refused(self, wrong: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            validate(TrackConfig, wrong)

    @pytest.mark.parametrize("tracker", ["mlflow", "tensorboard", "wandb"])
    def test_a_missing_package_is_told_before_training(
        self, tracker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("mlflow", "mlflow.tracking", "torch.utils.tensorboard", "wandb"):
            monkeypatch.setitem(sys.modules, name, None)
        with (
            pytest.raises(ConfigError, match=rf"{tracker}.*slicewise\[tracking\]"),
            open_trackers(TrackConfig(trackers=(tracker,)), tmp_path, "joint", {}),
        ):
            pytest.fail("training has begun")

    def test_wandb_online_needs_a_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
        config = TrackConfig(trackers=("wandb",), wandb_mode="online")
        with (
            pytest.raises(ConfigError, match="WANDB_API_KEY.*offline"),
            open_trackers(config, tmp_path, "joint", {}),
        ):
            pytest.fail("training has begun")

    def test_no_slow_package_is_imported_unless_asked_for(self) -> None:
        code = (
            "import sys, slicewise.training.tracking, slicewise.provenance;"
            "print([name for name in ('torch', 'mlflow', 'wandb', 'tensorboard') if name in sys.modules])"
        )
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == "[]"


def curve(folder: Path, kind: str, key: str) -> list[tuple[int, float]]:
    """A curve as TensorBoard shows it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / kind)).Reload()
    return [(event.step, event.value) for event in events.Scalars(f"{kind}/{key}")]


EXPECTED_LOSS = [(step, pytest.approx(1 / step)) for step in range(1, STEPS * EPOCHS + 1)]
EXPECTED_DICE = [(epoch, pytest.approx(epoch / 4)) for epoch in range(1, EPOCHS + 1)]


@tensorboard
class TestTensorBoard:
    def test_curves(self, tmp_path: Path) -> None:
        run(TrackConfig(trackers=("tensorboard",)), tmp_path)
        assert curve(tmp_path, "step", "loss") == EXPECTED_LOSS
        assert curve(tmp_path, "epoch", "val_dice") == EXPECTED_DICE
        assert len(curve(tmp_path, "step", "grad")) == STEPS * EPOCHS - 1

    def test_switched_on_late_it_gets_the_whole_curve(self, tmp_path: Path) -> None:
        run(TrackConfig(), tmp_path)
        run(TrackConfig(trackers=("tensorboard",)), tmp_path, 10, 1)
        assert curve(tmp_path, "step", "loss") == EXPECTED_LOSS
        assert curve(tmp_path, "epoch", "val_dice") == EXPECTED_DICE

    def test_a_tracker_that_fails_does_not_stop_training(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "tensorboard").write_text("a file where the folder should be")
        run(TrackConfig(trackers=("tensorboard",)), tmp_path)
        (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("slicewise")]
        assert "tensorboard fails" in warning
        assert "free space" in warning
        assert len(read_metrics(tmp_path / METRICS)) == (STEPS + 1) * EPOCHS


def client_of(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def mlflow_run(uri: str, folder: Path) -> tuple[Any, Callable[[str], list[tuple[int, float]]]]:
    """The run and a function that gives its curves."""
    client = client_of(uri)
    name = json.loads((folder / "mlflow-run.json").read_text())["run_id"]

    def history(key: str) -> list[tuple[int, float]]:
        return sorted((point.step, point.value) for point in client.get_metric_history(name, key))

    return client.get_run(name), history


def local(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


@mlflow
class TestMlflow:
    def test_run(self, tmp_path: Path) -> None:
        run(TrackConfig(trackers=("mlflow",), project="brains"), tmp_path)
        found, history = mlflow_run(local(tmp_path), tmp_path)
        assert history("step/loss") == EXPECTED_LOSS
        assert history("epoch/val_dice") == EXPECTED_DICE
        assert found.info.status == "FINISHED"
        assert found.info.run_name == "joint"
        assert found.data.params == {"model.preset": "small", "list": "[1, 2]"}
        assert found.data.tags["packages.torch"] == "2"
        assert client_of(local(tmp_path)).get_experiment(found.info.experiment_id).name == "brains"

    def test_a_stage_that_begins_anew_is_a_new_run(self, tmp_path: Path) -> None:
        config = TrackConfig(trackers=("mlflow",))
        run(config, tmp_path)
        before, _ = mlflow_run(local(tmp_path), tmp_path)
        run(config, tmp_path)
        after, history = mlflow_run(local(tmp_path), tmp_path)
        assert after.info.run_id != before.info.run_id
        assert history("step/loss") == EXPECTED_LOSS

    def test_a_lost_database_gives_a_new_run(self, tmp_path: Path) -> None:
        """With all figures."""
        config = TrackConfig(trackers=("mlflow",))
        run(config, tmp_path / "one")
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "mlflow-run.json").write_bytes((tmp_path / "one" / "mlflow-run.json").read_bytes())
        (tmp_path / "two" / METRICS).write_bytes((tmp_path / "one" / METRICS).read_bytes())
        run(config, tmp_path / "two", 7, 1)
        found, history = mlflow_run(local(tmp_path / "two"), tmp_path / "two")
        assert found.info.status == "FINISHED"
        assert history("step/loss") == EXPECTED_LOSS

    def test_an_error_in_training_ends_the_run_as_failed(self, tmp_path: Path) -> None:
        config = TrackConfig(trackers=("mlflow",))
        for error, status in ((ValueError("lost"), "FAILED"), (KeyboardInterrupt(), "KILLED")):
            with (
                pytest.raises(type(error)),
                open_trackers(config, tmp_path, "joint", PROVENANCE) as tracker,
            ):
                learn(tracker, stop=3)
                raise error
            found, history = mlflow_run(local(tmp_path), tmp_path)
            assert found.info.status == status
            assert history("step/loss") == EXPECTED_LOSS[:3]

    @pytest.mark.e2e
    def test_a_server_that_comes_late_gets_everything(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        uri = f"http://127.0.0.1:{port}"
        servers = serve_mlflow(tmp_path / "server", port)
        start = time.monotonic()
        with open_trackers(
            TrackConfig(trackers=("mlflow",), mlflow_uri=uri), tmp_path, "joint", PROVENANCE
        ) as tracker:
            learn(tracker)
            waited = time.monotonic() - start
            next(servers)
        assert waited < 60
        found, history = mlflow_run(uri, tmp_path)
        assert found.info.status == "FINISHED"
        assert history("step/loss") == EXPECTED_LOSS
        assert history("epoch/val_dice") == EXPECTED_DICE
        (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("slicewise")]
        assert "mlflow fails" in warning
        assert "mlflow_uri" in warning
        assert next(servers, None) is None


def serve_mlflow(folder: Path, port: int) -> Iterator[None]:
    """Start a server at the first step and stop it at the second."""
    folder.mkdir()
    words = ["--backend-store-uri", local(folder), "--default-artifact-root", str(folder / "artifacts")]
    words += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if server.poll() is not None:
                    pytest.skip(f"no server with these packages: {(folder / 'log').read_text()[-300:]}")
                time.sleep(0.2)
        yield
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, place, held = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        held += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(held)
            held = b""
            yield record


def wandb_files(folder: Path) -> list[Path]:
    """The run files of a folder."""
    return sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))


def wandb_curve(path: Path, kind: str, key: str) -> list[tuple[int, float]]:
    """A curve in an ended run's file."""
    # W&B's helper process may still be writing it.
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and "exit" not in {r.WhichOneof("record_type") for r in wandb_records(path)}:
        time.sleep(0.1)
    points = []
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            if f"{kind}/{key}" in row:
                points.append((row[kind], row[f"{kind}/{key}"]))
    return points


@wandb
class TestWandb:
    def test_offline_writes_a_file_and_makes_no_connection(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as trap:
            trap.setblocking(False)
            address = f"http://127.0.0.1:{trap.getsockname()[1]}"
            for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
                monkeypatch.setenv(name, address)
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(name, raising=False)
            run(TrackConfig(trackers=("wandb",), project="brains"), tmp_path)
            with pytest.raises(BlockingIOError):
                trap.accept()
        (path,) = wandb_files(tmp_path)
        assert wandb_curve(path, "step", "loss") == EXPECTED_LOSS
        assert wandb_curve(path, "epoch", "val_dice") == EXPECTED_DICE
        runs = [record.run for record in wandb_records(path) if record.WhichOneof("record_type") == "run"]
        assert {(begun.project, begun.display_name) for begun in runs} == {("brains", "joint")}
        assert socket.gethostname() not in {begun.host for begun in runs}
        assert "seed" in {item.key for item in runs[0].config.update}


@tensorboard
@mlflow
@wandb
def test_a_killed_stage_goes_on_in_the_same_runs(tmp_path: Path) -> None:
    """Killed after step 13 and epoch 2, going on from a checkpoint of step 7 and epoch 1."""
    code = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_tracking import ALL, PROVENANCE, TrackConfig, learn, open_trackers
with open_trackers(TrackConfig(trackers=ALL), Path({str(tmp_path)!r}), "joint", PROVENANCE) as tracker:
    learn(tracker, stop=13)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    # W&B's helper process of an earlier test would outlive the kill.
    alone = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=alone)
    assert answer.returncode == -signal.SIGKILL, answer.stderr
    begun, _ = mlflow_run(local(tmp_path), tmp_path)
    assert begun.info.status == "RUNNING"
    name = wandb_files(tmp_path)[0].name
    run(TrackConfig(trackers=ALL), tmp_path, 7, 1)

    run(TrackConfig(), tmp_path / "whole")
    assert (tmp_path / METRICS).read_bytes() == (tmp_path / "whole" / METRICS).read_bytes()
    assert curve(tmp_path, "step", "loss") == EXPECTED_LOSS
    assert curve(tmp_path, "epoch", "val_dice") == EXPECTED_DICE
    ended, history = mlflow_run(local(tmp_path), tmp_path)
    assert (ended.info.run_id, ended.info.status) == (begun.info.run_id, "FINISHED")
    assert history("step/loss") == EXPECTED_LOSS
    assert history("epoch/val_dice") == EXPECTED_DICE
    (path,) = wandb_files(tmp_path)
    assert path.name == name
    assert wandb_curve(path, "step", "loss") == EXPECTED_LOSS
    assert wandb_curve(path, "epoch", "val_dice") == EXPECTED_DICE
