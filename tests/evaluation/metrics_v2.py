"""A made-up ``metrics.json`` of the layout's version 2, for tests and speed measurements: seeded, no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from slicewise import RESEARCH_USE, __version__
from slicewise.config import REGIONS, EvaluateConfig
from slicewise.evaluation.calibration_report import NO_PIXELS, before_and_after
from slicewise.evaluation.intervals import Figure, bootstrap
from slicewise.evaluation.scored import Scored
from slicewise.inference.calibration import Abstain, Calibration, Calibrator, TemperatureMap, Threshold, sigmoid

CONFIG = EvaluateConfig(bootstrap=100)
SLICES = 20
THRESHOLD = 0.45
BAND = (0.3, 0.62)
UNDEFINED = Figure(value=None).model_dump()
FIGURES = ("dice", "iou", "hd95_mm", "assd_mm", "volume_error_ml", "volume_abs_error_ml")
MORE_FIGURES = ("sensitivity", "specificity", "lesion_dice", "lesion_hd95_mm")
CLASSIFICATION = (
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "mcc",
    "roc_auc",
    "pr_auc",
    "ece",
    "brier",
    "nll",
)
Record = dict[str, Any]


def make_metrics(
    n_studies: int = 12,
    seed: int = 0,
    *,
    skill: float = 0.85,
    patients_seed: int = 0,
    masks: bool = True,
    one_class: bool = False,
    known: Sequence[str] = REGIONS,
    sources: Sequence[str] = ("brats", "lgg"),
    name: str = "patient",
) -> Record:
    """Metrics of a made-up test split.

    Args:
        n_studies: Test studies, one per patient.
        seed: Of the model's answers.
        skill: About the mean Dice of the whole tumour.
        patients_seed: Of the patients: two calls with the same one describe the same patients.
        masks: Without, nothing is known of the regions.
        one_class: Whether all slices and patients show tumour.
        known: The regions that the masks tell.
        sources: Studies are dealt to them in turn.
        name: What the studies are called.
    """
    made = _Made(n_studies, seed, skill, patients_seed, one_class)
    studies = [
        made.study(at, f"{name}-{at:03d}", sources[at % len(sources)], masks, known) for at in range(n_studies)
    ]
    probability = sigmoid(made.logits / np.float32(1.6))
    patient = np.array([record["tumour_probability"] for record in studies], dtype=np.float32)
    truth = made.truth.reshape(n_studies, SLICES).max(axis=1)
    keys = [record["patient"] for record in studies]
    groups = np.repeat(keys, SLICES).tolist()
    metrics = {
        **_head(n_studies, sources, seed),
        "calibration": _calibration(n_studies),
        "calibration_figures": _calibration_figures(made, groups, masks),
        "classification": {
            "slice": classification(probability, made.truth, groups),
            "patient": classification(patient, truth, keys),
        },
        "decision": _decision(probability, made.truth, groups),
        "segmentation": {region: _segmentation(studies, region) for region in REGIONS},
        "studies": studies,
        "subgroups": _subgroups(studies),
        "uncertainty": _uncertainty(studies, known if masks else ()),
        "explanation": _explanation(studies) if masks else None,
        "ood": _ood(studies),
        "verdict": {"passed": True, "criteria": [], "reasons": []},
    }
    return metrics


class _Made:
    """Patients and the answers of a made-up model."""

    def __init__(self, n: int, seed: int, skill: float, patients_seed: int, one_class: bool) -> None:
        world, model = np.random.default_rng(patients_seed), np.random.default_rng(seed + 1000)
        self.ill = np.ones(n, dtype=bool) if one_class else world.random(n) < 0.75
        self.volume = world.lognormal(3.4, 0.8, n) * self.ill
        self.hard = world.random(n)
        share = 1.0 if one_class else 0.45
        self.truth = ((world.random((n, SLICES)) < share) & self.ill[:, None]).astype(np.float32).ravel()
        noise = model.normal(0, 1, (n, SLICES)) + 1.6 * self.hard[:, None] ** 2 * np.where(self.ill, -1, 1)[:, None]
        centre = (2 * self.truth.reshape(n, SLICES) - 1) * 3.4 * skill
        self.logits = (centre + 1.9 * noise).astype(np.float32).ravel()
        self.quality = np.clip(skill + 0.12 * model.normal(0, 1, n) - 0.35 * self.hard**3, 0.02, 0.98)
        self.model = model

    def study(self, at: int, key: str, source: str, masks: bool, known: Sequence[str]) -> Record:
        rows = slice(at * SLICES, (at + 1) * SLICES)
        probability = float(sigmoid(self.logits[rows] / np.float32(1.6)).max())
        record: Record = {
            "study": key,
            "patient": key,
            "source": source,
            "grade": {"brats": "HGG", "lgg": "LGG"}.get(source),
            "n_slices": SLICES,
            "tumour_probability": probability,
            "tumour_true": bool(self.truth[rows].max() > 0),
            "laterality": {"side": "left" if at % 2 else "right"},
            "mean_uncertainty": float(
                np.clip(0.5 - 0.5 * self.quality[at] + 0.04 * self.model.normal(), 0, np.log(2))
            ),
            "ood_score": float(abs(self.model.normal(0, 1)) + self.hard[at]),
        }
        for depth, region in enumerate(REGIONS):
            record[region] = self._region(at, depth, masks and region in known)
        return record

    def _region(self, at: int, depth: int, known: bool) -> Record:
        reference = float(self.volume[at] * 0.45**depth)
        noise = 0.04 * self.model.normal() if depth else 0.0
        dice = float(np.clip(self.quality[at] - 0.08 * depth + noise, 0.01, 0.99))
        empty = bool(reference == 0)
        predicted = float(reference * (1 + 0.3 * (1 - dice) * self.model.normal())) if not empty else 0.0
        false_positive = bool(empty and self.hard[at] > 0.6)
        predicted = 1.5 if false_positive else predicted
        record: Record = dict.fromkeys((*FIGURES, *MORE_FIGURES))
        record |= {"known": known, "empty_reference": known and empty, "false_positive": known and false_positive}
        record |= {"predicted_ml": predicted, "reference_ml": reference if known else None}
        record |= {"diameters_mm": None if empty else [18.0, 11.5], "slices": 0 if empty else 7}
        if known and not empty:
            error = predicted - reference
            distance = 40 * (1 - dice) ** 1.5
            values = (dice, dice / (2 - dice), distance, distance / 4, error, abs(error))
            record |= dict(zip(FIGURES, values, strict=True))
            record |= dict(zip(MORE_FIGURES, (dice, 0.99, dice * 0.9, distance * 1.2), strict=True))
        return record


def figure_of(values: Sequence[float | None], names: Sequence[str]) -> Record:
    """The mean of the defined values with its interval, over patients."""
    pairs = [(value, name) for value, name in zip(values, names, strict=True) if value is not None]
    if not pairs:
        return UNDEFINED
    array = np.array([value for value, _ in pairs])
    draws = array[np.random.default_rng(0).integers(0, len(array), (200, len(array)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5]).tolist() if len(set(names)) > 1 else (None, None)
    return {"value": float(array.mean()), "low": low, "high": high, "n": len(array)}


def classification(probability: NDArray[Any], truth: NDArray[Any], groups: Sequence[str]) -> Record:
    """As ``classification_report``, but quick: few resamples and no scikit-learn."""
    positive = truth > 0.5
    said = probability >= THRESHOLD
    order = np.argsort(-probability, kind="stable")
    tpr, fpr = np.cumsum(positive[order]), np.cumsum(~positive[order])
    both = bool(positive.any() and not positive.all())
    keep = np.unique(np.linspace(0, len(truth) - 1, min(len(truth), 60)).astype(int))
    roc = {
        "fpr": [0.0, *(fpr[keep] / fpr[-1]).tolist()] if both else [],
        "tpr": [0.0, *(tpr[keep] / tpr[-1]).tolist()] if both else [],
        "threshold": [1.0, *probability[order][keep].astype(float).tolist()] if both else [],
    }
    return {
        "n": len(truth),
        "n_positive": int(positive.sum()),
        "patients": len(set(groups)),
        "threshold": THRESHOLD,
        "figures": dict(zip(CLASSIFICATION, _intervals(probability, positive, groups), strict=True)),
        "confusion": [[int((said[positive == t] == s).sum()) for s in (False, True)] for t in (False, True)],
        "roc": roc,
    }


def _intervals(probability: NDArray[Any], positive: NDArray[np.bool_], groups: Sequence[str]) -> list[Record]:
    names = sorted(set(groups))
    rows = [np.flatnonzero(np.asarray(groups) == name) for name in names]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(40):
        drawn = np.concatenate([rows[at] for at in rng.integers(0, len(names), len(names))])
        draws.append(_points(probability[drawn], positive[drawn]))
    figures = []
    for value, column in zip(_points(probability, positive), zip(*draws, strict=True), strict=True):
        defined = [drawn for drawn in column if drawn is not None]
        low, high = (
            np.percentile(defined, [2.5, 97.5]).tolist() if value is not None and len(names) > 1 else (None, None)
        )
        figures.append({"value": value, "low": low, "high": high, "n": len(names)})
    return figures


def _points(probability: NDArray[Any], positive: NDArray[np.bool_]) -> list[float | None]:
    said = probability >= THRESHOLD
    tp, fp = int((said & positive).sum()), int((said & ~positive).sum())
    fn, tn = int((~said & positive).sum()), int((~said & ~positive).sum())

    def ratio(part: float, whole: float) -> float | None:
        return float(part / whole) if whole else None

    p, n = tp + fn, tn + fp
    auc = ratio(float(rankdata(probability)[positive].sum()) - p * (p + 1) / 2, p * n)
    ranked = positive[np.argsort(-probability, kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    clipped = np.clip(probability.astype(float), 1e-7, 1 - 1e-7)
    return [
        ratio(tp + tn, len(said)),
        (tp / p + tn / n) / 2 if p and n else None,
        ratio(tp, p),
        ratio(tn, n),
        ratio(tp, tp + fp),
        ratio(tn, tn + fn),
        ratio(2 * tp, 2 * tp + fp + fn),
        ratio(tp * tn - fp * fn, ((tp + fp) * p * n * (tn + fn)) ** 0.5),
        auc,
        float(precision[ranked].mean()) if p and n else None,
        float(abs(probability.mean() - positive.mean())),
        float(((probability - positive) ** 2).mean()),
        float(-np.where(positive, np.log(clipped), np.log1p(-clipped)).mean()),
    ]


def _segmentation(studies: Sequence[Record], region: str) -> Record:
    rows = [record[region] for record in studies]
    names = [record["patient"] for record in studies]
    report: Record = {key: figure_of([row[key] for row in rows], names) for key in (*FIGURES, *MORE_FIGURES)}
    scored = [row for row in rows if row["dice"] is not None]
    found = sum(bool(row["dice"] > 0.3) for row in scored)
    report |= {
        "n_scored": len(scored),
        "n_unknown": sum(not row["known"] for row in rows),
        "n_empty_reference": sum(row["empty_reference"] for row in rows),
        "n_false_positive": sum(row["false_positive"] for row in rows),
        "lesions": {
            "reference": len(scored),
            "predicted": found + 1,
            "true_positive": found,
            "false_negative": len(scored) - found,
            "false_positive": 1,
            "f1": 2 * found / (len(scored) + found + 1) if scored else None,
        },
    }
    return report


def _calibration(n: int) -> Record:
    tumour = Calibrator(
        method="temperature",
        parameters=TemperatureMap(temperature=1.6),
        kept=True,
        reason="held-out NLL 0.4210 → 0.3802: kept",
        n=n * SLICES,
        nll_before=0.421,
        nll_after=0.3802,
    )
    abstain = Abstain(alpha=0.1, low=BAND[0], high=BAND[1], patients=(n, n), reason="split conformal")
    threshold = Threshold(value=THRESHOLD, rule="Youden's index on validation")
    return Calibration(tumour=tumour, threshold=threshold, abstain=abstain).model_dump(mode="json")


def _calibration_figures(made: _Made, groups: list[str], masks: bool) -> Record:
    calibrator = Calibrator(method="temperature", parameters=TemperatureMap(temperature=1.6), kept=True)
    slices = Scored.of(made.logits, made.truth, groups)
    both = before_and_after(slices, calibrator, CONFIG)
    figures: Record = {"tumour": {"validation": both, "test": both}}
    for depth, region in enumerate(REGIONS):
        truth = (made.truth > 0) & (made.model.random(len(made.truth)) < 0.6**depth)
        pixels = Scored(
            logits=made.logits + np.float32(made.model.normal(0, 0.4)),
            truth=truth.astype(np.float32),
            groups=np.asarray(groups),
            weights=np.ones(len(truth), dtype=np.float32),
            foreground=truth | (made.logits > 0),
        )
        found = before_and_after(pixels if masks else NO_PIXELS, calibrator, CONFIG)
        figures[region] = {"validation": found, "test": found}
    return figures


def _decision(probability: NDArray[np.float32], truth: NDArray[np.float32], groups: list[str]) -> Record:
    answer = np.digitize(probability, BAND)  # 0 no tumour, 1 unsure, 2 tumour
    confusion = [[int(((truth == t) & (answer == a)).sum()) for a in range(3)] for t in (0, 1)]
    unsure, wrong = answer == 1, ((answer == 0) & (truth == 1)) | ((answer == 2) & (truth == 0))

    def share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> Record:
        def statistic(rows: NDArray[np.intp]) -> float | None:
            return float(part[rows][whole[rows]].mean()) if whole[rows].any() else None

        return bootstrap(statistic, groups, 100, 0.95).model_dump()

    everything = np.ones(len(truth), dtype=bool)
    return {
        "threshold": THRESHOLD,
        "rule": "Youden's index on validation",
        "abstain": {
            "alpha": 0.1,
            "low": BAND[0],
            "high": BAND[1],
            "coverage": share(~wrong, everything),
            "coverage_target": 0.9,
            "unsure_share": share(unsure, everything),
            "error_share_when_sure": share(wrong, ~unsure),
            "confusion3": confusion,
        },
    }


def _subgroups(studies: Sequence[Record]) -> Record:
    def size(record: Record) -> str | None:
        volume = record["WT"]["reference_ml"]
        return None if not volume else ("small" if volume < 20 else "large")

    keys: dict[str, Callable[[Record], str | None]] = {
        "source": lambda record: record["source"],
        "grade": lambda record: record["grade"],
        "size": size,
    }
    found: Record = {}
    for by, key in keys.items():
        groups: dict[str, list[Record]] = {}
        for record in studies:
            value = key(record)
            if value is not None:
                groups.setdefault(value, []).append(record)
        found[by] = {value: _subgroup(rows) for value, rows in sorted(groups.items())}
    return found


def _subgroup(rows: Sequence[Record]) -> Record:
    names = [row["patient"] for row in rows]
    probability = np.array([row["tumour_probability"] for row in rows])
    report = classification(probability, np.array([row["tumour_true"] for row in rows], dtype=float), names)
    dice = figure_of([row["WT"]["dice"] for row in rows], names)
    return {"n": len(rows), "dice_wt": dice, "roc_auc": report["figures"]["roc_auc"]}


def _uncertainty(studies: Sequence[Record], known: Sequence[str]) -> Record:
    """As ``uncertainty_section``, with a curve half-way between the random and the best one."""
    names = [record["patient"] for record in studies]
    retained = np.linspace(0, 1, 21)
    regions = {}
    for region in known:
        rate = 0.04
        random, ideal = rate * retained, np.maximum(0, retained - (1 - rate))
        figures = {key: figure_of([0.8 for _ in names], names) for key in ("error_rate", "auroc", "qu_brats")}
        curves = {"retained": retained, "error": (random + ideal) / 2, "random": random, "ideal": ideal}
        regions[region] = {**figures, "curves": {key: curve.tolist() for key, curve in curves.items()}}
    return {"mc_samples": 8, "regions": regions, "qu_brats": figure_of([0.8 for _ in names], names), "slices": None}


def _explanation(studies: Sequence[Record]) -> Record:
    names = [record["patient"] for record in studies]
    figures = {key: figure_of([0.7 for _ in names], names) for key in ("pointing", "energy_inside", "chance")}
    cascade = [
        {"randomised": words, "similarity": similarity, "n_undefined": 0}
        for words, similarity in (("head", 0.8), ("head and 50 % of the encoder", 0.3), ("head and 100 %", 0.1))
    ]
    return {
        "n_slices": 40,
        "n_with_tumour": 30,
        "n_empty_map": 0,
        **figures,
        "sanity": {"cascade": cascade, "changed": True},
    }


def _ood(studies: Sequence[Record]) -> Record:
    names = [record["patient"] for record in studies]
    scores = [record["ood_score"] for record in studies]
    flagged = figure_of([float(score > 2) for score in scores], names)
    return {
        "threshold": 2.0,
        "false_alarm": 0.05,
        "reason": "",
        "slices": len(scores),
        "figures": {"flagged": flagged, "score": figure_of(scores, names)},
        "by_source": {"brats": {"slices": 10, "flagged": flagged}},
        "scores": {"test slices": scores},
    }


def _head(n: int, sources: Sequence[str], seed: int) -> Record:
    sides = {"train": 5 * n, "val": n, "test": n}
    audit = {
        "studies": 7 * n,
        "patient_groups": 7 * n,
        "groups_of_several_studies": 0,
        "duplicate_groups": 0,
        "studies_in_duplicate_groups": 0,
        "identical_groups": 0,
        "studies_in_identical_groups": 0,
        "near_duplicate_pairs": 0,
        "patients_under_two_names": 0,
        "duplicates_that_disagree": 0,
        "duplicate_groups_across_sides": 0,
        "excluded": 0,
    }
    return {
        "format": "slicewise-metrics",
        "version": 2,
        "research_use": RESEARCH_USE,
        "slicewise_version": __version__,
        "synthetic": False,
        "sources": list(sources),
        "data_digest": f"{n:02x}" * 32,
        "split": sides | {"groups": 7 * n},
        "audit": audit,
        "data": {
            "studies": [_data_row(at, sources) for at in range(7 * n)],
            "n_synthetic": 0,
            "modalities": ["flair", "t1", "t1ce", "t2"],
            "audit": {
                "passed": True,
                "data_digest": f"{n:02x}" * 32,
                "problems": [],
                "counts": audit,
                "thresholds": {"near_duplicate_correlation": 0.92, "near_duplicate_bits": 32.0},
                "groups": [],
                "disagreements": [],
                "excluded": {},
                "n_groups": 0,
            },
        },
        "failures": [],
        "training": _training(seed),
    }


def _data_row(at: int, sources: Sequence[str]) -> Record:
    return {
        "study": f"study-{at:04d}",
        "source": sources[at % len(sources)],
        "synthetic": False,
        "side": "train",
        "modalities": ["flair", "t1ce"],
        "spacing_mm": [1.0, 1.0, 1.0],
        "frame": [240, 240],
        "n_slices": SLICES,
        "coverage": 0.28,
        "snr": {"flair": 21.0, "t1ce": 17.5},
        "warnings": ["low SNR"] if at % 9 == 0 else [],
    }


def _training(seed: int) -> Record:
    rng = np.random.default_rng(seed)

    def stage(name: str, epochs: int, before: list[Record]) -> Record:
        falling = np.exp(-np.arange(1, epochs + 1) / 3)
        history = [
            {
                "epoch": epoch + 1,
                "train_loss": float(0.3 + falling[epoch] + rng.normal(0, 0.02)),
                "val_loss": float(0.4 + falling[epoch] + rng.normal(0, 0.04)),
                "val_dice": float(0.85 - 0.6 * falling[epoch]),
                "val_auc": None if name == "seg_warmup" else float(0.95 - 0.3 * falling[epoch]),
            }
            for epoch in range(epochs)
        ]
        steps = np.arange(1, 30 * epochs + 1)
        curve = [[int(step), float(0.3 + np.exp(-step / 90) + rng.normal(0, 0.01))] for step in steps[::3]]
        return {
            "stage": name,
            "skipped": "",
            "parameters": 1_983_876,
            "train_slices": 3520,
            "trained_regions": list(REGIONS),
            "trained_tasks": ["segment", "classify"],
            "val_slices": 320,
            "device": "cpu",
            "precision": "fp32",
            "monitor": "combined",
            "best_epoch": epochs,
            "best_score": 0.81,
            "seconds": 60.0 * epochs,
            "provenance": {
                "slicewise": __version__,
                "python": "3.11",
                "packages": {"torch": "2.13.0", "monai": "1.6.1"},
                "seed": seed,
                "configuration": {"model": {"preset": "small"}, "train": {"batch_size": 16}},
                "configuration_sha256": "0" * 64,
                "code": {"commit": None, "dirty": None},
                "time": "2026-01-01T00:00:00+00:00",
            },
            "history": history,
            "step_losses": curve,
            "before": before,
        }

    warm = stage("seg_warmup", 8, [])
    head = stage("cls_head", 3, [])
    return stage("joint", 10, [warm, head])
