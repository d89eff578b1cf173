"""Facts about the model and its training; each is empty where ``metrics.json`` cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slicewise import RESEARCH_USE
from slicewise.evaluation.words import count, number

Metrics = Mapping[str, Any]
PACKAGES = ("torch", "monai", "numpy", "scipy", "scikit-learn", "nibabel", "pydicom")


def technology(m: Metrics) -> str:
    """What kind of AI it is."""
    size = (m.get("training") or {}).get("parameters")
    about = f" ({size} parameters)" if size else ""
    return f"Deep learning: one convolutional U-Net{about} with two tasks, on single axial slices of brain MRI"


def intended_use(_: Metrics) -> str:
    """What it is for."""
    return (
        f"{RESEARCH_USE} To study how far one network can tell whether an axial slice shows glioma, and where; for "
        "researchers who check every answer themselves"
    )


def architecture(m: Metrics) -> str:
    """The network's settings."""
    model = (_origin(m).get("configuration") or {}).get("model") or {}
    told = [f"{key} {value}" for key, value in model.items() if value is not None and not isinstance(value, dict)]
    return f"{technology(m)}; settings: {', '.join(told)}" if told else ""


def software(m: Metrics) -> str:
    """Versions."""
    origin = _origin(m)
    packages = origin.get("packages") or {}
    told = [f"{name} {packages[name]}" for name in PACKAGES if packages.get(name)]
    return (
        ", ".join([f"SliceWise {m['slicewise_version']}", f"Python {origin.get('python')}", *told]) if origin else ""
    )


def start(m: Metrics) -> str:
    """Where the weights begin."""
    origin = _origin(m)
    if origin.get("seed") is None:
        return ""
    given = ((origin.get("configuration") or {}).get("model") or {}).get("encoder_weights")
    encoder = "with an encoder that was trained before, the rest at random" if given else "at random"
    return f"Weights begin {encoder}; seed {origin['seed']}"


def training(m: Metrics) -> str:
    """The stages."""
    record = m.get("training") or {}
    stages = [stage for stage in [*(record.get("before") or []), record] if stage.get("history")]
    if not stages:
        return ""
    told = ", ".join(f"{stage['stage']} ({count(len(stage['history']), 'epoch')})" for stage in stages)
    digest = (_origin(m).get("configuration_sha256") or "")[:16]
    end = f"; all settings are in the run's config.yaml, digest {digest}" if digest else ""
    return f"Stages: {told}; {record.get('device')}, {record.get('precision')}{end}"


def selection(m: Metrics) -> str:
    """How the final weights were chosen."""
    record = m.get("training") or {}
    if not record.get("best_epoch"):
        return ""
    if record["monitor"] == "last":
        return "The last epoch is kept, neither validation nor test patients choose it"
    return (
        f"The epoch with the best {record['monitor']} score on the validation patients is kept in every stage (last "
        f"stage: epoch {record['best_epoch']}, {number(record.get('best_score'))}); the test split takes no part"
    )


def availability(m: Metrics) -> str:
    """What can be had."""
    return (
        f"SliceWise {m['slicewise_version']}, Apache-2.0; the model is a bundle (safetensors and JSON) with the "
        f"SHA-256 of every file; data digest {m['data_digest'][:16]}"
    )


def _origin(m: Metrics) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (m.get("training") or {}).get("provenance") or {}
    return found
