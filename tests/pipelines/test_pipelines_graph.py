"""The compiled file itself: its graph, its components, and checks that the SDK does not make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kfp import components, dsl

from components.images import TARGETS
from components.outputs import log_classification
from pipelines.cluster import ClusterConfig
from pipelines.compile import compile_pipeline, write_components
from pipelines.compiled import LOADER, check_compiled, faults
from pipelines.graph import leaves, task_graph
from pipelines.katib import experiment, write_experiment
from pipelines.local_settings import local_settings
from pipelines.pipeline import build_pipeline
from slicewise.config import Config, EvaluateConfig, load_config
from slicewise.config.tune import load_tune
from slicewise.errors import PipelineError
from slicewise.evaluation.classification import classification_report

ROOT = Path(__file__).parents[2]


def config(shards: int) -> Config:
    return load_config("baseline", overrides=[f"preprocess.shards={shards}"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_pipeline(config(1), ClusterConfig(), tmp_path_factory.mktemp("c") / "p.yaml")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_pipeline(config(4), ClusterConfig(), tmp_path_factory.mktemp("c") / "p.yaml")


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    spec, platform = yaml.load_all(path.read_text(), LOADER)
    return spec, platform


@pytest.mark.parametrize("shards", [1, 4])
def test_the_local_run_has_the_graph_of_the_compiled_file(shards: int, whole: Path, sharded: Path) -> None:
    local = build_pipeline(config(shards), local_settings(ClusterConfig()), deploy_target="local")
    on_disk = task_graph(read(whole if shards == 1 else sharded)[0])
    from google.protobuf import json_format

    here = task_graph(json_format.MessageToDict(local.pipeline_spec))
    assert here == on_disk
    assert here["exit-handler-1/evaluate"].outputs == (
        ("classification", "system.ClassificationMetrics"),
        ("evaluation", "system.Artifact"),
        ("metrics", "system.Metrics"),
        ("model_card", "system.Markdown"),
        ("report", "system.HTML"),
    )


def test_tasks_are_coarse_and_everything_is_within_the_exit_handler(whole: Path, sharded: Path) -> None:
    spec = read(whole)[0]
    paths = leaves(spec)
    assert len(paths) == 12
    assert [path for path in paths if "/" not in path] == ["summarise"]
    root = spec["root"]["dag"]["tasks"]["summarise"]
    assert root["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert root["inputs"]["parameters"]["status"]["taskFinalStatus"]["producerTask"] == "exit-handler-1"
    fanned = task_graph(read(sharded)[0])
    loop = next(node for node in fanned.values() if node.loop)
    assert json.loads(loop.loop.split("'raw': '")[1].rstrip("'}")) == [0, 1, 2, 3]
    assert len(leaves(read(sharded)[0])) == 13
    merged = next(node for path, node in fanned.items() if path.endswith("/merge-shards"))
    assert merged.outputs == (("store", "system.Dataset"),)
    split = next(node for path, node in fanned.items() if path.endswith("/split"))
    assert ("store", "merge-shards.store") in split.inputs


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda spec, _: spec.update(schemaVersion="2.0.0"), "schema version '2.0.0'"),
        (lambda spec, _: spec["components"]["comp-gate"].update(executorLabel="exec-gat"), "executor exec-gat,"),
        (
            lambda spec, _: spec["deploymentSpec"]["executors"].update(spare={}),
            "no component uses the executor spare",
        ),
        (
            lambda _, platform: platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].update(x={}),
            "settings name the executor x",
        ),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"]["summarise"]["componentRef"].update(name="comp-x"),
            "runs comp-x, which does not exist",
        ),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"]["summarise"].update(dependentTasks=["x"]),
            "waits for x, which does not exist",
        ),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"]["summarise"]["inputs"]["parameters"].update(
                where={"runtimeValue": {"constant": "/runs/{{$.pipeline_job_uuid}}"}}
            ),
            "placeholder inside a longer text",
        ),
    ],
)
def test_what_loads_and_is_wrong_all_the_same_is_found(whole: Path, change: Any, words: str) -> None:
    spec, platform = read(whole)
    assert list(faults(spec, platform)) == []
    change(spec, platform)
    assert any(words in fault for fault in faults(spec, platform))


def test_a_damaged_file_is_named(whole: Path, tmp_path: Path) -> None:
    spec, platform = read(whole)
    spec["components"]["comp-gate"]["surprise"] = 1
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump_all([spec, platform]))
    with pytest.raises(PipelineError, match="does not load: .*surprise"):
        check_compiled(path)
    path.write_text("a: [")
    with pytest.raises(PipelineError, match="is not YAML"):
        check_compiled(path)
    path.write_text("a: 1")
    with pytest.raises(PipelineError, match="is no compiled pipeline"):
        check_compiled(path)


def test_components_load_into_other_pipelines(tmp_path: Path) -> None:
    paths = write_components(tmp_path)
    assert sorted(path.stem for path in paths) == sorted(TARGETS)
    loaded = {path.stem: components.load_component_from_file(str(path)) for path in paths}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    @dsl.pipeline(name="others")
    def others():  # type: ignore[no-untyped-def]
        data = loaded["download"](sources=["phantom"], download={}, seed=0, run_folder="")
        loaded["preprocess"](dataset=data.outputs["dataset"], preprocess={}, seed=0, run_folder="")

    assert set(others.pipeline_spec.root.dag.tasks) == {"download", "preprocess"}


@pytest.mark.parametrize("name", list(TARGETS))
def test_a_components_page_names_its_inputs_and_outputs(name: str, tmp_path: Path) -> None:
    from pipelines.compile import component_of

    spec = component_of(name).component_spec
    text = (ROOT / "components" / name / "README.md").read_text()
    for key in [*(spec.inputs or {}), *(spec.outputs or {})]:
        assert f"| `{key}` |" in text
    assert f"`{TARGETS[name]}`" in text
    assert f"{name}.yaml" in text


def test_kubeflow_gets_figures_without_infinities(tmp_path: Path) -> None:
    probability = np.array([0.1, 0.4, 0.35, 0.8], dtype=np.float32)
    truth = np.array([0, 0, 1, 1], dtype=np.float32)
    report = classification_report(probability, truth, ["a", "b", "c", "d"], 0.5, EvaluateConfig(bootstrap=100))
    artifact = dsl.ClassificationMetrics(uri=str(tmp_path / "c"))
    artifact.path = str(tmp_path / "c")
    log_classification(artifact, report)
    json.dumps(artifact.metadata, allow_nan=False)
    assert artifact.metadata["confusionMatrix"]["annotationSpecs"][1] == {"displayName": "tumour"}
    assert [row["row"] for row in artifact.metadata["confusionMatrix"]["rows"]] == [[2, 0], [1, 1]]
    assert len(artifact.metadata["confidenceMetrics"]) == len(report["roc"]["fpr"]) > 1


# --- Katib


def test_the_experiment_in_the_manifests_is_the_default_search(tmp_path: Path) -> None:
    write_experiment(load_tune(), load_config("baseline"), ClusterConfig(), tmp_path / "e.yaml")
    assert (tmp_path / "e.yaml").read_text() == (ROOT / "manifests" / "katib" / "experiment.yaml").read_text()


def test_the_experiment_has_the_space_and_is_what_katib_reads() -> None:
    models = pytest.importorskip("kubeflow_katib_api.models")
    made = experiment(load_tune(), load_config("quick"), ClusterConfig(gpu_count=0))
    read = models.V1beta1Experiment.from_dict(made)
    assert read.to_dict() == made
    references = {item.reference for item in read.spec.trial_template.trial_parameters}
    assert {item.name for item in read.spec.parameters} == references == set(load_tune().space)
    command = made["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"]
    for item in read.spec.trial_template.trial_parameters:
        assert f"{item.reference}=${{trialParameters.{item.name}}}" in command
    assert "nvidia.com/gpu" not in str(made)


def test_a_trial_trains_and_tells_its_score(small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from small_run import MODEL

    from pipelines.katib_trial import main

    settings = tmp_path / "c.yaml"
    epochs = {name: {"epochs": 1, "min_steps": 0} for name in ("seg_warmup", "cls_head", "joint")}
    settings.write_text(yaml.safe_dump({"model": MODEL.model_dump(mode="json", exclude_none=True), "train": epochs}))
    where = ["--store", str(small.store.folder), "--split", str(small.folder / "split"), "--mode", "smoke"]
    words = [*where, "--config", str(settings), "--stages", "seg_warmup,joint"]
    assert main([*words, "--set", "train.joint.lr=0.002"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("score=")]
    assert len(lines) == 2
    assert all(0 <= float(line.removeprefix("score=")) <= 2 for line in lines)
    assert main([*words, "--set", "train.joint.lr=fast"]) == 2
    assert "train.joint.lr" in capsys.readouterr().err
