"""Write what is checked, each overlay as built and KServe's pods as Deployments: ``python policy/render.py FOLDER``.

A policy tool looks into the pods of built-in kinds only. KServe makes Deployments of ServingRuntime and
InferenceService; here the same is done with what a policy can judge, the pods' specifications.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

OVERLAYS = Path(__file__).resolve().parents[1] / "manifests" / "overlays"
# Keys of a predictor or transformer that are KServe's own and no pod's.
KSERVE_ONLY = {
    *("model", "minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout", "containerConcurrency"),
    *("canaryTrafficPercent", "deploymentStrategy", "annotations", "autoScaling"),
}
Manifest = dict[str, Any]


def build(overlay: Path) -> list[Manifest]:
    """The overlay's objects, by kustomize."""
    beside = Path(sys.executable).with_name("kubectl")
    kubectl = str(beside) if beside.is_file() else shutil.which("kubectl") or "kubectl"
    text = subprocess.run([kubectl, "kustomize", str(overlay)], check=True, capture_output=True, text=True).stdout
    return list(yaml.safe_load_all(text))


def deployments(objects: list[Manifest]) -> Iterator[Manifest]:
    """One Deployment for each predictor and transformer."""
    runtimes = {item["metadata"]["name"]: item["spec"] for item in objects if item["kind"] == "ServingRuntime"}
    for service in (item for item in objects if item["kind"] == "InferenceService"):
        predictor, transformer = service["spec"]["predictor"], service["spec"]["transformer"]
        yield _deployment(service, "predictor", _merged(runtimes[predictor["model"]["runtime"]], predictor))
        yield _deployment(service, "transformer", transformer)


def _merged(runtime: Manifest, predictor: Manifest) -> Manifest:
    """The predictor's pod: the runtime's container with the model's settings, and the rest of both."""
    model = predictor["model"]
    (container,) = runtime["containers"]
    env = [*container.get("env", []), *model.get("env", [])]
    container = container | {key: model[key] for key in ("resources",) if key in model} | {"env": env}
    volumes = [*runtime.get("volumes", []), *predictor.get("volumes", [])]
    return predictor | {"containers": [container], "volumes": volumes}


def _deployment(service: Manifest, part: str, pod: Manifest) -> Manifest:
    name = f"{service['metadata']['name']}-{part}"
    spec = {key: value for key, value in pod.items() if key not in KSERVE_ONLY}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": service["metadata"]["namespace"]},
        "spec": {
            "replicas": pod["minReplicas"],
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name, "component": part}}, "spec": spec},
        },
    }


def main(folder: Path) -> None:
    """One file for each overlay."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(OVERLAYS.glob("*/kustomization.yaml")):
        objects = build(path.parent)
        listed = [*objects, *deployments(objects)]
        documents = [json.dumps(item, indent=1) for item in listed]
        (folder / f"{path.parent.name}.yaml").write_text("\n---\n".join(documents) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
