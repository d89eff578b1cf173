"""What a run can tell of itself, in sentences: for the model card and the checklists, from ``metrics.json`` alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slicewise.config import REGIONS
from slicewise.evaluation import facts_data, facts_model, facts_results
from slicewise.evaluation.words import number, percent

Metrics = Mapping[str, Any]
FEW = 30


def limits_of(metrics: Metrics) -> list[str]:
    """What the figures do not say, from the run's own numbers."""
    tests, sources = metrics["split"]["test"], ", ".join(metrics["sources"])
    found = [
        f"Judged on {tests} test studies from {sources}, and on no other scanner, site, protocol or disease.",
        "One split of one data set: an internal test, no external validation.",
        "The network sees one slice at a time, not its neighbours.",
        "Not tested on children, after surgery, or on lesions other than glioma.",
        "Age, sex and ethnicity are not in the data, so that fairness between such groups could not be judged.",
    ]
    if metrics.get("synthetic"):
        about = "the figures say that the software works, nothing about patients."
        found.insert(0, f"Synthetic phantoms are among the data: {about}")
    trained = (metrics.get("training") or {}).get("trained_regions")
    if trained is not None and len(trained) < len(REGIONS):
        names = ", ".join(trained) or "no region"
        found.append(f"Trained for {names} only: the maps of other regions are empty.")
    shares = ((metrics.get("postprocess") or {}).get("chosen") or {}).get("min_share") or {}
    if any(shares.values()):
        about = ", ".join(f"{name} below {percent(share)}" for name, share in shares.items() if share)
        found.append(
            f"In whole studies components far smaller than the largest are dropped ({about} of its volume, chosen on "
            "validation): the smaller foci of a tumour with several are not drawn."
        )
    patients = metrics["classification"]["patient"].get("patients") or 0
    if 0 < patients < FEW:
        found.append(f"{patients} test patients: intervals are wide, and rare failures are not seen at all.")
    return found


def threshold_words(metrics: Metrics) -> str:
    """The decision threshold and the rule that chose it."""
    section = metrics.get("decision") or {}
    fitted = (metrics.get("calibration") or {}).get("threshold") or {}
    value = section.get("threshold", fitted.get("value"))
    return "unknown" if value is None else f"{number(value)} ({section.get('rule') or fitted.get('rule')})"


def decision(metrics: Metrics) -> str:
    """What a slice's answer is, and when it is "unsure"."""
    band = (metrics.get("decision") or {}).get("abstain")
    words = f"Calibrated probability of tumour for each slice, threshold {threshold_words(metrics)}"
    if not band:
        return words
    return f'{words}; between {number(band["low"])} and {number(band["high"])} the answer is "unsure"'


FACTS: dict[str, Callable[[Metrics], str]] = {
    "technology": facts_model.technology,
    "intended_use": facts_model.intended_use,
    "architecture": facts_model.architecture,
    "software": facts_model.software,
    "start": facts_model.start,
    "training": facts_model.training,
    "selection": facts_model.selection,
    "availability": facts_model.availability,
    "sources": facts_data.sources,
    "excluded": facts_data.excluded,
    "images": facts_data.images,
    "split": facts_data.split,
    "disjoint": facts_data.disjoint,
    "slices": facts_data.slices,
    "flow": facts_data.flow,
    "cases": facts_data.cases,
    "regions": facts_data.regions,
    "measures": facts_results.measures,
    "statistics": facts_results.statistics,
    "calibration": facts_results.calibration,
    "subgroups": facts_results.subgroups,
    "explanation": facts_results.explanation,
    "uncertainty": facts_results.uncertainty,
    "segmentation": facts_results.segmentation,
    "classification": facts_results.classification,
    "failures": facts_results.failures,
    "verdict": facts_results.verdict,
    "limits": lambda metrics: " ".join(limits_of(metrics)),
    "decision": decision,
}


def gather_facts(metrics: Metrics) -> dict[str, str | None]:
    """One sentence or two for each topic, without the full stop; None where this run cannot tell."""
    return {name: fact(metrics) or None for name, fact in FACTS.items()}


def told(facts: Mapping[str, str | None], names: Sequence[str]) -> str | None:
    """Several facts as sentences in a row; None where one of them is missing."""
    sentences = []
    for name in names:
        text = facts[name]
        if text is None:
            return None
        sentences.append(text if text[-1] in ".!?" else f"{text}.")
    return " ".join(sentences)
