"""Facts about the data; each is empty where ``metrics.json`` cannot tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from slicewise.config import REGIONS
from slicewise.evaluation.words import count

Metrics = Mapping[str, Any]
NAMED = 5


def sources(m: Metrics) -> str:
    """Where the studies come from."""
    counts = Counter(str(study["source"]) for study in m["data"]["studies"])
    told = ", ".join(f"{name} ({_studies(n)})" for name, n in sorted(counts.items()))
    return f"{told or ', '.join(m['sources'])}; data digest {m['data_digest'][:16]}"


def excluded(m: Metrics) -> str:
    """Which studies took no part, and why."""
    reasons = [str(failure["reason"]) for failure in m.get("failures") or []]
    reasons += [f"{key}: {why}" for key, why in ((m["data"].get("audit") or {}).get("excluded") or {}).items()]
    if not reasons:
        return "No study was left out"
    return f"{_studies(len(reasons))} left out: {'; '.join(reasons[:NAMED])}{'; …' if len(reasons) > NAMED else ''}"


def images(m: Metrics) -> str:
    """Sequences and voxel sizes."""
    studies = m["data"]["studies"]
    modalities = Counter(name for study in studies for name in study["modalities"])
    told = ", ".join(f"{name} in {n}" for name, n in sorted(modalities.items()))
    spacings = [study["spacing_mm"] for study in studies if study.get("spacing_mm")]
    if not spacings:
        return f"Sequences: {told} of {_studies(len(studies))}; voxel sizes are unknown"
    apart, pixels = (_range([spacing[axis] for spacing in spacings]) for axis in (0, 1))
    return f"Sequences: {told} of {_studies(len(studies))}; slices {apart} mm apart, pixels of {pixels} mm"


def split(m: Metrics) -> str:
    """How studies were dealt."""
    sides = m["split"]
    return (
        f"{sides['train']} studies to train, {sides['val']} to validate and {sides['test']} to test, dealt by "
        f"patient ({sides['groups']} patient groups)"
    )


def disjoint(m: Metrics) -> str:
    """What stays on one side, and what the audit found."""
    counts = (m["data"].get("audit") or {}).get("counts") or m.get("audit") or {}
    across = counts.get("duplicate_groups_across_sides", 0)
    return (
        "By patient: studies of one patient, identical files and near-duplicates of images without patient ids stay "
        f"on one side; an audit found {counts.get('duplicate_groups', 0)} groups of duplicates, {across or 'none'} "
        "across sides"
    )


def slices(m: Metrics) -> str:
    """Which slices were used."""
    chosen, judged = (m.get("training") or {}).get("train_slices"), m["classification"]["slice"]
    if not chosen:
        return ""
    return (
        f"{chosen} slices were chosen for training; every slice of the test studies was judged ({judged['n']} with a "
        "known class)"
    )


def flow(m: Metrics) -> str:
    """From the studies found to the test split."""
    return f"{len(m['data']['studies'])} studies were usable. {excluded(m)}. {split(m)}"


def cases(m: Metrics) -> str:
    """The test studies' characteristics."""
    studies = m["studies"]
    ill = sum(record.get("tumour_true") is True for record in studies)
    told = [f"Test split: {_studies(len(studies))}, {ill} with tumour"]
    volumes = sorted(v for record in studies if (v := (record.get("WT") or {}).get("reference_ml")))
    if volumes:
        told.append(f"whole tumours of {_range(volumes)} ml, median {volumes[len(volumes) // 2]:.3g} ml")
    grades = Counter(str(record["grade"]) for record in studies if record.get("grade"))
    told += [", ".join(f"{name}: {n}" for name, n in sorted(grades.items()))] if grades else []
    return "; ".join(told)


def regions(m: Metrics) -> str:
    """What the masks tell."""
    known = {name: sum(bool((record.get(name) or {}).get("known")) for record in m["studies"]) for name in REGIONS}
    told = ", ".join(f"{name} in {n}" for name, n in known.items())
    tests = count(len(m["studies"]), "test study", "test studies")
    return f"Masks that come with the data tell {told} of {tests}"


def _studies(n: int) -> str:
    return count(n, "study", "studies")


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low}–{high}"
