"""``cluster.yaml``: what it accepts, and what becomes of it in the compiled pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.images import TARGETS, component_image
from components.train.trainjob_settings import TrainJobSettings
from pipelines.cluster import ClusterConfig, load_cluster
from pipelines.compile import compile_pipeline
from pipelines.compiled import LOADER
from pipelines.local_settings import ignored_settings, local_settings
from slicewise.config import config_folder, load_config
from slicewise.errors import ConfigError

DIGEST = "sha256:" + "0" * 64


def compiled(cluster: ClusterConfig, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    path = compile_pipeline(load_config("baseline"), cluster, tmp_path / "p.yaml")
    spec, platform = yaml.load_all(path.read_text(), LOADER)
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """Every task's description, by name."""
    groups = [spec["root"], *spec["components"].values()]
    return {name: task for group in groups if "dag" in group for name, task in group["dag"]["tasks"].items()}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    cluster = load_cluster(config_folder() / "cluster.yaml")
    changes = {
        "image_pull_secrets": ("registry",),
        "checkpoint_claim": "keep",
        "gpu_count": 2,
        "annotations": {"a": "b"},
    }
    data = cluster.data.model_copy(update={"claim": "scans", "s3_endpoint": "http://minio:9000"})
    return compiled(cluster.model_copy(update=changes | {"data": data}), tmp_path_factory.mktemp("c"))


def test_the_example_names_every_key() -> None:
    written = yaml.safe_load((config_folder() / "cluster.yaml").read_text())
    assert set(written) == set(ClusterConfig.model_fields)


def test_gpu_tasks_go_to_their_pool_and_others_do_not(example: tuple[dict[str, Any], dict[str, Any]]) -> None:
    spec, pods = example
    pool = pods["exec-train"]
    assert pool["nodeSelector"]["labels"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    (term,) = pool["nodeAffinity"]
    assert (term["weight"], term["matchExpressions"][0]["values"]) == (50, ["europe-west4-a"])
    assert pool["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "pool", "operator": "Equal", "value": "training", "effect": "NoSchedule"},
    ]
    (shm,) = pool["emptyDirMounts"]
    assert (shm["mountPath"], shm["medium"], shm["sizeLimit"]) == ("/dev/shm", "Memory", "2Gi")
    executors = spec["deploymentSpec"]["executors"]
    counts = {
        name: executors[f"exec-{name}"]["container"]["resources"]["accelerator"] for name in ("train", "evaluate")
    }
    assert [count["resourceCount"] for count in counts.values()] == ["2", "1"]
    for name in ("download", "gate", "deploy", "summarise"):
        assert not {"nodeSelector", "tolerations", "nodeAffinity", "emptyDirMounts"} & pods[f"exec-{name}"].keys()
        assert "accelerator" not in executors[f"exec-{name}"]["container"]["resources"]
    assert spec["root"]["inputDefinitions"]["parameters"]["train"]["defaultValue"]["processes"] == 2


def test_every_pod_is_its_users_and_none_is_roots(example: tuple[dict[str, Any], dict[str, Any]]) -> None:
    spec, pods = example
    assert set(pods) == set(spec["deploymentSpec"]["executors"])
    for pod in pods.values():
        assert pod["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        assert pod["imagePullPolicy"] == "IfNotPresent"
        assert [secret["secretName"] for secret in pod["imagePullSecret"]] == ["registry"]
        assert pod["podMetadata"] == {"labels": {"app.kubernetes.io/part-of": "slicewise"}, "annotations": {"a": "b"}}
        # The run's id comes from the pod's label: as a parameter it would defeat the cache.
        assert pod["fieldPathAsEnv"] == [{"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}]


def test_secrets_go_by_reference_to_their_stages(example: tuple[dict[str, Any], dict[str, Any]]) -> None:
    spec, pods = example
    named = {name: [item["secretName"] for item in pod.get("secretAsEnv", ())] for name, pod in pods.items()}
    assert named["exec-download"] == ["slicewise-s3", "slicewise-kaggle"]
    assert named["exec-deploy"] == ["slicewise-s3"]
    assert named["exec-train"] == ["slicewise-wandb"]
    assert named["exec-gate"] == []
    keys = pods["exec-download"]["secretAsEnv"][0]["keyToEnv"]
    assert {"secretKey": "access-key", "envVar": "AWS_ACCESS_KEY_ID"} in keys
    env = {
        item["name"]: item["value"] for item in spec["deploymentSpec"]["executors"]["exec-deploy"]["container"]["env"]
    }
    assert env == {"AWS_ENDPOINT_URL_S3": "http://minio:9000", "AWS_DEFAULT_REGION": "us-east-1"}


def test_volumes_are_where_they_are_needed(example: tuple[dict[str, Any], dict[str, Any]]) -> None:
    mounts = {
        name: [(item["constant"], item["mountPath"]) for item in pod["pvcMount"]]
        for name, pod in example[1].items()
        if "pvcMount" in pod
    }
    train = [(name, claims) for name, claims in mounts.items() if name.startswith("exec-train")]
    assert mounts["exec-download"] == [("scans", "/data")]
    assert train
    assert all(claims == [("keep", "/checkpoints")] for _, claims in train)
    assert len(mounts) == 1 + len(train)


def test_limits_retries_timeouts_and_caching_by_stage(example: tuple[dict[str, Any], dict[str, Any]]) -> None:
    spec, pods = example
    found = tasks(spec)
    policy = found["split"]["retryPolicy"]
    assert policy == {
        "maxRetryCount": 2,
        "backoffDuration": "30s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "3600s",
    }
    assert found["download"]["retryPolicy"]["maxRetryCount"] == 5
    assert pods["exec-train"]["activeDeadlineSeconds"] == str(1440 * 60)
    assert pods["exec-split"]["activeDeadlineSeconds"] == str(240 * 60)
    cached = {name for name, task in found.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert not {"download", "deploy", "summarise"} & cached
    assert {"preprocess", "split", "train", "evaluate"} <= cached
    container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert (container["resourceCpuRequest"], container["resourceMemoryLimit"]) == ("8", "32Gi")


def test_images_by_component_and_pinned() -> None:
    cluster = ClusterConfig(image="reg/x:1", images={"train": f"reg/gpu@{DIGEST}"})
    assert cluster.image_of("train") == f"reg/gpu@{DIGEST}"
    assert cluster.image_of("gate") == "reg/x:1"
    assert ClusterConfig().image_of("train") == component_image("train") != component_image("gate")
    assert ClusterConfig(gpu_count=0).image_of("train") == component_image("gate")
    assert ClusterConfig(image=f"reg/x@{DIGEST}", require_digest=True).image_of("gate").endswith(DIGEST)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu_cuont: 2", "did you mean 'gpu_count'"),
        ("stages: {trian: {cpu: '8'}}", "did you mean 'train'"),
        ("stages: {train: {memory: 32 GB}}", "stages.train.memory"),
        ("images: {train: 'no spaces please'}", "images.train"),
        ("image: untagged", "image"),
        ("require_digest: true", "the image of download has none"),
        ("secrets: [{name: s, env: {A: a}, stages: [fetch]}]", "no component 'fetch'"),
        ("secrets: [{name: s, env: {A-B: a}}]", "secrets"),
        ("run_as_user: 0", "run_as_user"),
        ("train: {backend: trainjob}", "needs checkpoint_claim"),
        ("affinity: [{expressions: [{key: zone}]}]", "operator In takes values"),
        ("data: {s3_endpoint: minio:9000}", "data.s3_endpoint"),
        ("retry_factor: 0.5", "retry_factor"),
        ("- a\n- b", "key: value"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_settings_are_named_with_the_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_cluster(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.cure


def test_a_trainjob_takes_the_pool_and_the_watching_pod_does_not(tmp_path: Path) -> None:
    cluster = load_cluster(config_folder() / "cluster.yaml").model_copy(update={"checkpoint_claim": "shared"})
    train = cluster.train.model_copy(update={"backend": "trainjob", "nodes": 3})
    spec, pods = compiled(cluster.model_copy(update={"train": train, "gpu_count": 4}), tmp_path)
    given = tasks(spec)["train"]["inputs"]["parameters"]["trainjob"]["runtimeValue"]["constant"]
    settings = TrainJobSettings.model_validate(given)
    assert (settings.nodes, settings.processes, settings.claim) == (3, 4, "shared")
    assert settings.resources == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "4"}
    assert settings.tolerations[0] == {"operator": "Exists", "key": "nvidia.com/gpu", "effect": "NoSchedule"}
    assert settings.env[0]["name"] == "AWS_DEFAULT_REGION"
    assert settings.env[-1]["valueFrom"]["secretKeyRef"]["name"] == "slicewise-wandb"
    assert "accelerator" not in spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert "nodeSelector" not in pods["exec-train"]
    assert "nodeSelector" in pods["exec-evaluate"]


def test_what_the_local_runner_ignores_is_named_and_what_it_does_is_kept() -> None:
    cluster = ClusterConfig.model_validate(
        {"gpu_count": 4, "retries": 2, "cache": False, "env": {"A": "b"}, "stages": {"train": {"cache": True}}}
    )
    # retries has its default value: nothing that was asked for is ignored.
    assert ignored_settings(cluster) == ["gpu_count"]
    assert ignored_settings(ClusterConfig()) == []
    assert ignored_settings(ClusterConfig.model_validate({"stages": {"train": {"cpu": "8"}}})) == ["stages"]
    kept = local_settings(cluster)
    assert (kept.retries, kept.has_gpu, kept.env) == (0, False, {"A": "b"})
    assert [kept.settings_of(name).cache for name in ("split", "train")] == [False, True]


def test_every_component_has_an_image_target() -> None:
    folders = {path.parent.name for path in (Path(__file__).parents[2] / "components").glob("*/component.py")}
    assert folders == set(TARGETS)
