"""The verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slicewise import RESEARCH_USE
from slicewise.config import GateConfig
from slicewise.config.gate import CalibrationLimits, GateCondition, SubgroupFloor
from slicewise.config.metric_names import label_of
from slicewise.evaluation.gate.champion import champion_criteria, read_champion
from slicewise.evaluation.gate.criterion import Criterion, Kind, make_criterion
from slicewise.evaluation.gate.lookup import UNDEFINED, as_figure, find_figure
from slicewise.evaluation.intervals import Figure

# Calibrated and raw probabilities differ in the last digits even where the map changes nothing.
NLL_SLACK = 1e-6


def check_gate(gate: GateConfig) -> None:
    """Find out before the work that the champion cannot be read.

    Raises:
        ConfigError: It cannot.
    """
    if gate.champion is not None:
        read_champion(gate.champion)


def judge(metrics: Mapping[str, Any], gate: GateConfig) -> dict[str, Any]:
    """Decide whether a model may be deployed.

    A figure that is undefined on this test split (no masks, one class) is not held against the model unless its
    condition requires it, but a model of which nothing could be judged does not pass.

    Args:
        metrics: As ``evaluate`` writes them.
        gate: The limits.

    Returns:
        ``passed``; ``criteria``, each as ``Criterion``, with ``passed`` None where it was not judged; ``reasons``, a
        sentence for each that failed; ``champion``, what was compared with, or None; ``summary``, one sentence.

    Raises:
        ConfigError: A condition names a figure that does not exist, or the champion cannot be read.
    """
    criteria = [
        *_conditions(metrics, (*_plain_limits(gate), *gate.conditions)),
        *(criterion for floor in gate.subgroups for criterion in _floor(metrics, floor)),
        *_calibration(metrics, gate.calibration),
    ]
    champion, more = champion_criteria(metrics, gate)
    criteria += more
    reasons = [criterion.sentence for criterion in criteria if criterion.passed is False]
    if criteria and all(criterion.passed is None for criterion in criteria):
        reasons.append("none of the gate's figures is defined on this test split")
    return {
        "research_use": RESEARCH_USE,
        "passed": not reasons,
        "criteria": [criterion.model_dump() for criterion in criteria],
        "reasons": reasons,
        "champion": champion,
        "summary": _summary(criteria, reasons),
    }


def _summary(criteria: list[Criterion], reasons: list[str]) -> str:
    if not criteria:
        return "The gate has no conditions: the model passes without having been judged."
    failed = sum(criterion.passed is False for criterion in criteria)
    unjudged = sum(criterion.passed is None for criterion in criteria)
    kept = len(criteria) - failed - unjudged
    left = f", {unjudged} could not be judged" if unjudged else ""
    word = "refused" if reasons else "passed"
    return f"The gate {word} the model: {kept} of {len(criteria)} conditions are kept, {failed} are not{left}."


def _plain_limits(gate: GateConfig) -> Iterator[GateCondition]:
    """The four limits that have keys of their own."""
    for metric, least in (
        ("roc_auc", gate.min_roc_auc),
        ("sensitivity", gate.min_sensitivity),
        ("dice_wt", gate.min_dice_wt),
    ):
        if least is not None:
            yield GateCondition(metric=metric, min=least)
    if gate.max_ece is not None:
        yield GateCondition(metric="ece", max=gate.max_ece)


def _limits(limit: GateCondition | SubgroupFloor) -> list[tuple[Kind, float]]:
    pairs: tuple[tuple[Kind, float | None], ...] = (("at least", limit.min), ("at most", limit.max))
    return [(kind, value) for kind, value in pairs if value is not None]


def _conditions(metrics: Mapping[str, Any], conditions: tuple[GateCondition, ...]) -> list[Criterion]:
    return [
        make_criterion(
            label_of(condition.metric),
            condition.metric,
            find_figure(metrics, condition.metric),
            kind,
            limit,
            bound=condition.bound,
            require=condition.require,
        )
        for condition in conditions
        for kind, limit in _limits(condition)
    ]


def _floor(metrics: Mapping[str, Any], floor: SubgroupFloor) -> list[Criterion]:
    """One criterion for each subgroup; small ones are told but not judged."""
    found = []
    for by, name, row in _subgroups(metrics, floor.by):
        figure = as_figure(row.get(floor.metric)) or UNDEFINED
        small = f"{figure.n} patients, {floor.min_n} are needed" if figure.n < floor.min_n else ""
        found += [
            make_criterion(
                f"{label_of(floor.metric)} where {by} is {name}",
                f"subgroups.{by}.{name}.{floor.metric}",
                figure,
                kind,
                limit,
                bound=floor.bound,
                unjudged=small,
            )
            for kind, limit in _limits(floor)
        ]
    return found


def _subgroups(metrics: Mapping[str, Any], wanted: tuple[str, ...]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    groupings = metrics.get("subgroups") or {}
    for by, groups in groupings.items():
        if isinstance(groups, Mapping) and (not wanted or by in wanted):
            for name, row in groups.items():
                if isinstance(row, Mapping):
                    yield by, name, row


def _calibration(metrics: Mapping[str, Any], limits: CalibrationLimits) -> list[Criterion]:
    found = []
    for output in limits.outputs:
        figures = {when: _calibrated(metrics, output, when) for when in ("before", "after")}
        path = f"calibration_figures.{output}.test.after.figures"
        if limits.max_ece is not None:
            ece = as_figure(figures["after"].get("ece")) or UNDEFINED
            name = f"ECE after calibration ({output})"
            found.append(make_criterion(name, f"{path}.ece", ece, "at most", limits.max_ece, bound=limits.bound))
        if limits.nll_not_worse:
            found.append(_nll(f"{path}.nll", output, figures))
    return found


def _calibrated(metrics: Mapping[str, Any], output: str, when: str) -> Mapping[str, Any]:
    side = ((metrics.get("calibration_figures") or {}).get(output) or {}).get("test") or {}
    figures: Mapping[str, Any] = (side.get(when) or {}).get("figures") or {}
    return figures


def _nll(metric: str, output: str, figures: Mapping[str, Mapping[str, Any]]) -> Criterion:
    """Calibration is there to lower the NLL: on the test split it may not raise it."""
    before, after = (as_figure(figures[when].get("nll")) or UNDEFINED for when in ("before", "after"))
    name = f"NLL after calibration ({output})"
    if before.value is None:
        return make_criterion(name, metric, Figure(value=None), "at most", 0.0)
    found = make_criterion(name, metric, after, "at most", before.value)
    passed = None if after.value is None else after.value <= before.value + NLL_SLACK
    text = found.sentence.replace(" is wanted", ", that of the raw probabilities, is wanted")
    return found.model_copy(update={"passed": passed, "sentence": text})
