"""The comparison of two runs: differences with intervals, tests, and what stands in the way of comparing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slicewise import RESEARCH_USE, __version__
from slicewise.config import REGIONS
from slicewise.evaluation.compare_rows import PER_REGION, Patients, Row, paired_rows, unpaired_rows
from slicewise.evaluation.paired import holm

Metrics = Mapping[str, Any]
ALPHA = 0.05
MIN_SHARED = 2
NAMED = 5


def compare_runs(a: Metrics, b: Metrics, names: tuple[str, str] = ("A", "B"), alpha: float = ALPHA) -> dict[str, Any]:
    """Compare two runs' test figures, B against A.

    Patients in both test splits are compared with themselves: paired differences with bootstrap intervals and a
    permutation test, DeLong's test for the ROC-AUC. With fewer than two such patients the runs are compared by their
    intervals, and a warning says so. P-values are corrected for their number by Holm's procedure.

    Args:
        a: ``metrics.json`` of the run to compare with.
        b: ``metrics.json`` of the other.
        names: What to call them.
        alpha: Level of the tests; intervals are of 1 - alpha.

    Returns:
        ``runs``, ``paired``, ``n_shared``, ``warnings``, ``rows`` (each with both figures, the difference, method,
        p, Holm's p and a verdict) and ``patients`` (the shared ones, with both runs' figures).
    """
    one, other = Patients(a), Patients(b)
    shared = sorted(set(one.names) & set(other.names))
    paired = len(shared) >= MIN_SHARED
    rows = paired_rows(a, b, shared, 1 - alpha) if paired else unpaired_rows(a, b)
    corrected = holm([row.difference.p for row in rows])
    return {
        "format": "slicewise-comparison",
        "version": 1,
        "research_use": RESEARCH_USE,
        "slicewise_version": __version__,
        "alpha": alpha,
        "runs": [_run(metrics, name) for metrics, name in zip((a, b), names, strict=True)],
        "paired": paired,
        "n_shared": len(shared),
        "warnings": [*_patient_warnings(one, other, shared, names), *_data_warnings(a, b, names)],
        "rows": [_record(row, p, alpha, names) for row, p in zip(rows, corrected, strict=True)],
        "patients": [_patient(name, one, other) for name in shared],
    }


def _run(metrics: Metrics, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "sources": list(metrics["sources"]),
        "synthetic": bool(metrics["synthetic"]),
        "data_digest": metrics["data_digest"],
        "split": dict(metrics["split"]),
        "test_patients": len({record["patient"] for record in metrics["studies"]}),
        "verdict": bool(metrics["verdict"]["passed"]),
    }


def _record(row: Row, corrected: float | None, alpha: float, names: tuple[str, str]) -> dict[str, Any]:
    found = row.difference
    return {
        "metric": row.metric,
        "label": row.label,
        "unit": row.unit,
        "better": row.better,
        "a": row.a.model_dump(),
        "b": row.b.model_dump(),
        "difference": found.figure.model_dump(),
        "method": found.method,
        "p": found.p,
        "p_holm": corrected,
        "p_rank": found.p_rank,
        "left_out": row.left_out,
        "verdict": _verdict(row, corrected, alpha, names),
    }


def _verdict(row: Row, corrected: float | None, alpha: float, names: tuple[str, str]) -> str:
    """Which run is better, as far as this data shows it."""
    figure = row.difference.figure
    if figure.value is None:
        return "undefined"
    if corrected is None:
        apart = figure.low is not None and figure.high is not None and (figure.low > 0 or figure.high < 0)
        return "not tested; the interval leaves out 0" if apart else "not tested"
    if corrected >= alpha:
        return "no difference shown"
    b_better = (figure.value > 0) == (row.better == "higher")
    return f"{names[1] if b_better else names[0]} better"


def _patient_warnings(one: Patients, other: Patients, shared: Sequence[str], names: tuple[str, str]) -> list[str]:
    only = [sorted(set(x.names) - set(shared)) for x in (one, other)]
    found = []
    if len(shared) < MIN_SHARED:
        found.append(
            f"NOT PAIRED: the runs share {len(shared)} test patients. Differences come from two sets of patients, "
            "and may be theirs rather than the models'; they prove little."
        )
    for name, missing in zip(names, only, strict=True):
        if missing and len(shared) >= MIN_SHARED:
            listed = ", ".join(missing[:NAMED]) + (", …" if len(missing) > NAMED else "")
            found.append(f"{len(missing)} test patients of {name} only ({listed}) take no part in paired figures.")
    changed = [name for name in shared if _references(one, name) != _references(other, name)]
    if changed:
        listed = ", ".join(changed[:NAMED]) + (", …" if len(changed) > NAMED else "")
        found.append(f"The reference of {len(changed)} shared patients differs between the runs ({listed}).")
    return found


def _references(patients: Patients, name: str) -> list[Any]:
    """Reference volumes to 1 %: another size of the slices changes them a little."""
    volumes = [patients.mean(name, region, "reference_ml") for region in REGIONS]
    return [None if volume is None else float(f"{volume:.1g}") for volume in volumes]


def _data_warnings(a: Metrics, b: Metrics, names: tuple[str, str]) -> list[str]:
    found = []
    if a["data_digest"] != b["data_digest"]:
        found.append(
            f"The data differ: digest {a['data_digest'][:12]} of {names[0]}, {b['data_digest'][:12]} of {names[1]}."
        )
    if a["split"] != b["split"]:
        told = [", ".join(f"{key} {value}" for key, value in m["split"].items()) for m in (a, b)]
        found.append(f"The splits differ: {told[0]} of {names[0]}; {told[1]} of {names[1]}.")
    if sorted(a["sources"]) != sorted(b["sources"]):
        found.append(f"The sources differ: {', '.join(a['sources'])} and {', '.join(b['sources'])}.")
    synthetic = [name for name, metrics in zip(names, (a, b), strict=True) if metrics["synthetic"]]
    if synthetic:
        found.append(
            f"SYNTHETIC phantoms are among the data of {' and '.join(synthetic)}: this says nothing of patients."
        )
    return found


def _patient(name: str, one: Patients, other: Patients) -> dict[str, Any]:
    record: dict[str, Any] = {"patient": name, "studies": [s["study"] for s in one.studies(name)]}
    for region in REGIONS:
        record[region] = {
            key: [one.mean(name, region, key), other.mean(name, region, key)] for _, key, _, _ in PER_REGION
        }
    probabilities = [patients.probability(name) for patients in (one, other)]
    record["tumour_probability"] = [None if found is None else found[0] for found in probabilities]
    truths = [found[1] for found in probabilities if found is not None]
    record["tumour_true"] = bool(truths[0]) if truths else None
    return record
