"""Checks of a compiled pipeline that neither the SDK's loader nor a protobuf parser makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format  # type: ignore[import-untyped]
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from slicewise.errors import PipelineError

SCHEMA_VERSION = "2.1.0"
PLACEHOLDER = "{{$."
# Written in C where PyYAML was built with it: ten times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CURE = "compile it again with 'slicewise compile', with the versions of requirements.lock"


def read_compiled(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two documents of a compiled file: the pipeline, and what is Kubernetes' own.

    Raises:
        PipelineError: Missing, or not YAML of that kind.
    """
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), LOADER))
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not YAML", CURE) from error
    if not documents or not all(isinstance(item, dict) for item in documents) or "root" not in documents[0]:
        raise PipelineError(f"{path} is no compiled pipeline", CURE)
    return documents[0], documents[1] if len(documents) > 1 else {}


def check_compiled(path: Path) -> dict[str, Any]:
    """Load a compiled pipeline with the SDK, validate it as protobuf, and check what both let pass.

    Returns:
        The pipeline's specification.

    Raises:
        PipelineError: Names what is wrong with it.
    """
    spec, platform = read_compiled(path)
    try:
        components.load_component_from_file(str(path))
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
        for config in _kubernetes(platform).values():
            json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    except (json_format.ParseError, ValueError, TypeError, KeyError) as error:
        raise PipelineError(f"{path} does not load: {' '.join(str(error).split())[:300]}", CURE) from error
    for fault in faults(spec, platform):
        raise PipelineError(f"{path}: {fault}", CURE)
    return spec


def faults(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a specification that loads."""
    if spec.get("schemaVersion") != SCHEMA_VERSION:
        yield f"schema version {spec.get('schemaVersion')!r}, not {SCHEMA_VERSION}"
    executors = set(spec["deploymentSpec"]["executors"])
    labels = {item["executorLabel"] for item in spec["components"].values() if "executorLabel" in item}
    for label in sorted(labels - executors):
        yield f"a component names the executor {label}, which does not exist"
    for label in sorted(executors - labels):
        yield f"no component uses the executor {label}"
    for label in sorted(set(_kubernetes(platform)) - executors):
        yield f"Kubernetes' settings name the executor {label}, which does not exist"
    yield from _group_faults(spec, spec["root"]["dag"], "root")
    for name, component in spec["components"].items():
        if "dag" in component:
            yield from _group_faults(spec, component["dag"], name)


def _kubernetes(platform: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (
        platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    )
    return found


def _group_faults(spec: Mapping[str, Any], dag: Mapping[str, Any], group: str) -> Iterator[str]:
    for name, task in dag["tasks"].items():
        if task["componentRef"]["name"] not in spec["components"]:
            yield f"task {group}/{name} runs {task['componentRef']['name']}, which does not exist"
        for other in task.get("dependentTasks", ()):
            if other not in dag["tasks"]:
                yield f"task {group}/{name} waits for {other}, which does not exist"
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            value = str(source.get("runtimeValue", {}).get("constant", ""))
            # Kubeflow's driver replaces a placeholder that is the whole value, and no other.
            if PLACEHOLDER in value and not (value.startswith("{{") and value.endswith("}}")):
                yield f"task {group}/{name}: input {key} has a placeholder inside a longer text, which stays as it is"
