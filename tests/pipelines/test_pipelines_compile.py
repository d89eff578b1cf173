"""The compiled pipeline, cluster settings, and the run's display."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from kfp import components
from rich.console import Console

from components.images import PIPELINE_IMAGE
from pipelines.cluster import ClusterConfig, load_cluster
from pipelines.compile import compile_pipeline
from pipelines.display import StageDisplay
from pipelines.runs import Run, latest_unfinished
from slicewise.config import load_config
from slicewise.errors import ConfigError, RunLockedError, UsageError

STAGES = {
    "download",
    "preprocess",
    "split",
    "train",
    "train-2",
    "train-3",
    "calibrate",
    "evaluate",
    "gate",
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_pipeline(load_config("baseline"), ClusterConfig(), tmp_path_factory.mktemp("c") / "p.yaml")


def test_compiled_file_loads_and_has_every_stage(compiled: Path) -> None:
    loaded = components.load_component_from_file(str(compiled))
    assert loaded.name == "slicewise"
    spec, platform = yaml.safe_load_all(compiled.read_text())
    assert set(spec["root"]["dag"]["tasks"]) == {"exit-handler-1", "summarise"}
    tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert set(tasks) >= STAGES
    branch = next(name for name in tasks if name.startswith("condition"))
    assert "passed" in tasks[branch]["triggerPolicy"]["condition"]
    inner = spec["components"][tasks[branch]["componentRef"]["name"]]["dag"]["tasks"]
    assert set(inner) == {"package", "deploy"}
    assert platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_training_asks_for_a_gpu_and_installs_nothing(compiled: Path) -> None:
    spec = next(yaml.safe_load_all(compiled.read_text()))
    executors = spec["deploymentSpec"]["executors"]
    gpu = executors["exec-train"]["container"]["resources"]["accelerator"]
    assert gpu["resourceType"] == "nvidia.com/gpu"
    assert "accelerator" not in executors["exec-download"]["container"].get("resources", {})
    for executor in executors.values():
        assert "pip install" not in " ".join(executor["container"]["command"])
        assert executor["container"]["image"].startswith(PIPELINE_IMAGE)


def test_checkpoints_lie_on_the_claim_so_that_a_retried_task_goes_on(tmp_path: Path) -> None:
    cluster = ClusterConfig(checkpoint_claim="slicewise-checkpoints")
    path = compile_pipeline(load_config("baseline"), cluster, tmp_path / "p.yaml")
    spec, platform = yaml.safe_load_all(path.read_text())
    executor = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]
    (mount,) = executor["pvcMount"]
    assert (mount["constant"], mount["mountPath"]) == ("slicewise-checkpoints", "/checkpoints")
    group = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    given = group["train"]["inputs"]["parameters"]["checkpoints"]
    assert given["runtimeValue"]["constant"] == "/checkpoints"


def test_evaluation_gives_kubeflow_what_its_ui_shows(compiled: Path) -> None:
    spec = next(yaml.safe_load_all(compiled.read_text()))
    outputs = spec["components"]["comp-evaluate"]["outputDefinitions"]["artifacts"]
    kinds = {name: output["artifactType"]["schemaTitle"] for name, output in outputs.items()}
    assert kinds["metrics"] == "system.Metrics"
    assert kinds["classification"] == "system.ClassificationMetrics"
    assert kinds["report"] == "system.HTML"
    assert kinds["model_card"] == "system.Markdown"


def test_cluster_settings_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("gpu_cuont: 2\n")
    with pytest.raises(ConfigError, match="did you mean 'gpu_count'"):
        load_cluster(path)
    path.write_text("gpu_count: 2\nnode_selector: {pool: a100}\n")
    assert load_cluster(path).gpu_count == 2


def test_output_must_be_named_yaml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"end it in \.yaml"):
        compile_pipeline(load_config(), ClusterConfig(), tmp_path / "pipeline.json")


def test_display_shows_the_gist_and_keeps_the_whole(tmp_path: Path) -> None:
    shown = io.StringIO()
    with StageDisplay(tmp_path / "log", Console(file=shown, width=120)) as display:
        display.write(
            "10:00:00.1 - INFO - Executing task \x1b[96m'preprocess'\x1b[0m\n    10:00:01 INFO slicewise.pro"
        )
        display.write("gress: preprocess 3/9 Phantom_0003\n[KFP Executor] noise\n")
        display.write("    10:00:02 ERROR components: stage failed: study x: damaged — copy it again\n")
        display.write("10:00:03 - ERROR - Task 'preprocess' finished with status FAILURE\n")
    assert "preprocess 3/9 Phantom_0003" in shown.getvalue()
    assert "noise" not in shown.getvalue()
    assert display.error == "study x: damaged — copy it again"
    assert display.failed == "preprocess"
    assert "noise" in (tmp_path / "log").read_text()


def test_a_run_folder_is_opened_locked_and_found(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "runs" / "a", load_config(overrides=["seed=5"]), ["phantom"])
    again = Run.open(tmp_path / "runs" / "a")
    assert (again.config, again.sources) == (run.config, ["phantom"])
    assert latest_unfinished(tmp_path / "runs") == tmp_path / "runs" / "a"
    with run.lock(), pytest.raises(RunLockedError), again.lock():
        pytest.fail("the folder was locked twice")
    run.save("done")
    with pytest.raises(UsageError, match="no unfinished run"):
        latest_unfinished(tmp_path / "runs")
    with pytest.raises(UsageError, match="already holds a run"):
        Run.create(tmp_path / "runs" / "a", load_config(), ["phantom"])
    with pytest.raises(UsageError, match="holds no run"):
        Run.open(tmp_path)
