"""The start-up probe: the ways of running the network that are open, timed on this machine for some seconds."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from slicewise.config import PredictorSettings
from slicewise.cpus import cpu_model
from slicewise.files import write_json
from slicewise.inference.engines.base import Engine, Plan
from slicewise.inference.engines.choose import Site, build_engine, plans
from slicewise.inference.probe_timing import Timing, Tried, try_plan
from slicewise.locks import one_at_a_time

logger = logging.getLogger(__name__)


class Probe(BaseModel):
    """What was chosen, and by which numbers.

    Attributes:
        chosen: The plan's name.
        reason: ``measured``; ``only``: nothing else was open, or worked; ``kept``: measured at an earlier start.
        threads: CPU threads of torch and of the engine.
        timings: Of all candidates; empty where there was one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen: str
    reason: Literal["measured", "only", "kept"]
    threads: int
    timings: tuple[Timing, ...] = ()


def choose_engine(site: Site, settings: PredictorSettings, folder: Path | None = None) -> tuple[Engine, Probe]:
    """Set up the fastest engine that the settings leave open and that gives torch's answers.

    Args:
        site: The network and where it runs.
        settings: What may be chosen.
        folder: Where results are kept for the next start on the same kind of machine, and processes that start
            together measure one after the other; None keeps none.
    """
    found = plans(settings, site.device)
    if settings.engine == "openvino" and all(plan.engine != "openvino" for plan in found):
        logger.warning("OpenVINO is not installed, or not for %s: torch runs the network", site.device.type)
    if len(found) == 1:
        return _take(site, found[0], settings, Probe(chosen=found[0].name, reason="only", threads=site.threads))
    with nullcontext() if folder is None else one_at_a_time(folder / "probe.lock"):
        kept = _read(folder, site, found)
        if kept is None:
            return _measure(site, settings, found, folder)
    plan = next(plan for plan in found if plan.name == kept.chosen)
    return _take(site, plan, settings, kept)


def _take(site: Site, plan: Plan, settings: PredictorSettings, probe: Probe) -> tuple[Engine, Probe]:
    """The engine of a plan that is settled."""
    if plan.engine == "torch":
        return build_engine(site, plan, settings), probe
    tried = try_plan(site, plan, settings, 0.0, None)
    if tried.engine is not None:
        return tried.engine, probe
    return _fall_back(site, settings, [tried.timing])


def _measure(
    site: Site, settings: PredictorSettings, found: Sequence[Plan], folder: Path | None
) -> tuple[Engine, Probe]:
    share = settings.probe_seconds / len(found)
    expected: torch.Tensor | None = None
    tried: dict[Plan, Tried] = {}
    for plan in found:
        tried[plan] = try_plan(site, plan, settings, share, expected)
        expected = tried[plan].answer if plan == Plan() else expected
    timings = tuple(result.timing for result in tried.values())
    logger.info("engines on %d threads: %s", site.threads, "; ".join(map(str, timings)))
    usable = [plan for plan in found if tried[plan].timing.usable]
    if not usable:
        return _fall_back(site, settings, timings)
    best = min(usable, key=lambda plan: tried[plan].timing.cost)
    probe = Probe(chosen=best.name, reason="measured", threads=site.threads, timings=timings)
    if folder is not None:
        write_json(_place(folder, site, found), probe.model_dump(mode="json"))
    engine = tried[best].engine
    if best.engine == "torch" or engine is None:
        # The weights' layout is the network's, not an engine's: a later candidate may have changed it.
        engine = build_engine(site, best, settings)
    return engine, probe


def _fall_back(site: Site, settings: PredictorSettings, timings: Sequence[Timing]) -> tuple[Engine, Probe]:
    logger.warning("torch runs the network: %s", "; ".join(map(str, timings)))
    probe = Probe(chosen=Plan().name, reason="only", threads=site.threads, timings=tuple(timings))
    return build_engine(site, Plan(), settings), probe


def _read(folder: Path | None, site: Site, found: Sequence[Plan]) -> Probe | None:
    """The result of an earlier start, where there is one for such a machine, network and candidates."""
    if folder is None:
        return None
    try:
        probe = Probe.model_validate_json(_place(folder, site, found).read_bytes())
    except (OSError, ValidationError):
        return None
    return probe.model_copy(update={"reason": "kept"}) if probe.chosen in {plan.name for plan in found} else None


def _place(folder: Path, site: Site, found: Sequence[Plan]) -> Path:
    names = [plan.name for plan in found]
    what = (cpu_model(), torch.__version__, site.threads, site.size, names, str(site.network))
    return folder / f"probe-{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}.json"
