"""One criterion of the gate, as data and as a sentence."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from slicewise.config.gate import Bound
from slicewise.evaluation.intervals import Figure

Kind = Literal["at least", "at most"]
_BOUND_WORDS = {"low": "lower bound", "high": "upper bound"}


class Criterion(BaseModel):
    """What was judged, against what, and how it came out.

    Attributes:
        name: The figure's name for people.
        metric: Its name in the configuration.
        value: The figure; None where it is undefined.
        low: Lower end of its interval.
        high: Upper end.
        n: Patients that it rests on; 0 where that is not known.
        bound: Which of the three is held against the limit.
        judged: That number; None where it is undefined.
        kind: ``at least`` or ``at most``.
        limit: The limit.
        passed: None where it was not judged.
        sentence: All of this in words.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    bound: Bound
    judged: float | None
    kind: Kind
    limit: float
    passed: bool | None
    sentence: str


def make_criterion(
    name: str,
    metric: str,
    figure: Figure,
    kind: Kind,
    limit: float,
    *,
    bound: Bound = "value",
    require: bool = False,
    unjudged: str = "",
) -> Criterion:
    """Hold a figure against a limit.

    Args:
        name: The figure's name for people.
        metric: Its name in the configuration.
        figure: The figure.
        kind: ``at least`` or ``at most``.
        limit: The limit.
        bound: What of the figure is held against it.
        require: An undefined number fails.
        unjudged: Why the figure is told but not judged; empty judges it.
    """
    judged = getattr(figure, bound)
    passed: bool | None
    if unjudged:
        passed = None
    elif judged is None:
        passed = False if require else None
    else:
        passed = judged >= limit if kind == "at least" else judged <= limit
    sentence = _sentence(name, figure, bound, judged, kind, limit, require, unjudged)
    return Criterion(
        name=name,
        metric=metric,
        **figure.model_dump(),
        bound=bound,
        judged=judged,
        kind=kind,
        limit=limit,
        passed=passed,
        sentence=sentence,
    )


def _sentence(
    name: str,
    figure: Figure,
    bound: Bound,
    judged: float | None,
    kind: Kind,
    limit: float,
    require: bool,
    unjudged: str,
) -> str:
    wanted = f"{kind} {limit:.4g} is wanted"
    if judged is None:
        what = name if bound == "value" or figure.value is None else f"the {_BOUND_WORDS[bound]} of {name}"
        end = "and it is required" if require and not unjudged else f"so that it is not judged ({wanted})"
        return f"{what} is undefined on this test split, {end}"
    if bound == "value":
        text = f"{name} is {with_interval(figure)}, {wanted}"
    else:
        text = f"{name} is {with_interval(figure)}: its {_BOUND_WORDS[bound]} is {judged:.3f}, {wanted}"
    return f"{text}; not judged: {unjudged}" if unjudged else text


def with_interval(figure: Figure) -> str:
    """``0.912 (0.870–0.951, n=12)``; only what is known of it."""
    parts = []
    if figure.low is not None and figure.high is not None:
        parts = [f"{figure.low:.3f}{' to ' if figure.low < 0 else '–'}{figure.high:.3f}"]
    parts += [f"n={figure.n}"] if figure.n else []
    value = "undefined" if figure.value is None else f"{figure.value:.3f}"
    return f"{value} ({', '.join(parts)})" if parts else value
