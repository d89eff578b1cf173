"""A pipeline's task graph, as the compiled file describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TaskNode:
    """One task.

    Attributes:
        path: The groups it is in and its name, joined by ``/``.
        component: What it runs, without the number that KFP gives to a second use.
        after: The tasks of its group that it waits for.
        inputs: Input → where it comes from.
        outputs: Output → its type.
        condition: Under which it runs, or nothing.
        loop: Over what it is repeated, or nothing.
    """

    path: str
    component: str
    after: frozenset[str]
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    condition: str
    loop: str


def task_graph(spec: Mapping[str, Any]) -> dict[str, TaskNode]:
    """Every task and every group of a pipeline, by path.

    Args:
        spec: The first document of a compiled file.
    """
    return {node.path: node for node in _nodes(spec, spec["root"]["dag"], "")}


def leaves(spec: Mapping[str, Any]) -> list[str]:
    """The paths of the tasks that run in a pod."""
    components = spec["components"]
    return [
        path for path, node in task_graph(spec).items() if "executorLabel" in components[f"comp-{node.component}"]
    ]


def _nodes(spec: Mapping[str, Any], dag: Mapping[str, Any], prefix: str) -> Iterator[TaskNode]:
    for name, task in dag["tasks"].items():
        reference = task["componentRef"]["name"]
        component = spec["components"][reference]
        loop = task.get("parameterIterator") or task.get("artifactIterator") or {}
        yield TaskNode(
            path=prefix + name,
            component=reference.removeprefix("comp-"),
            after=frozenset(task.get("dependentTasks", ())),
            inputs=tuple(sorted(_inputs(task))),
            outputs=tuple(sorted(_outputs(component))),
            condition=task.get("triggerPolicy", {}).get("condition", ""),
            loop=str(loop.get("items", "")),
        )
        if "dag" in component:
            yield from _nodes(spec, component["dag"], f"{prefix}{name}/")


def _inputs(task: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where inputs come from; a constant's value is a setting, not part of the graph."""
    for kind in ("parameters", "artifacts"):
        for name, source in task.get("inputs", {}).get(kind, {}).items():
            if "taskOutputArtifact" in source or "taskOutputParameter" in source:
                made = source.get("taskOutputArtifact") or source["taskOutputParameter"]
                key = made.get("outputArtifactKey") or made.get("outputParameterKey")
                yield name, f"{made['producerTask']}.{key}"
            else:
                yield (
                    name,
                    source.get("componentInputParameter") or source.get("componentInputArtifact") or "constant",
                )


def _outputs(component: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    outputs = component.get("outputDefinitions", {})
    for name, artifact in outputs.get("artifacts", {}).items():
        yield name, artifact["artifactType"]["schemaTitle"]
    for name, parameter in outputs.get("parameters", {}).items():
        yield name, parameter["parameterType"]
