"""The library's half of the ``package`` stage: weights, calibration and figures become a bundle."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Any

from slicewise.config import ModelConfig
from slicewise.evaluation.calibrate import read_calibration
from slicewise.evaluation.evaluate import FILE as METRICS_FILE
from slicewise.evaluation.model_card import JSON as CARD_JSON
from slicewise.evaluation.model_card import model_card, model_card_json
from slicewise.evaluation.ood import read_ood
from slicewise.files import read_result
from slicewise.inference.bundle import CARD, Bundle, BundleMeta, write_bundle
from slicewise.inference.ood import OOD_FILE
from slicewise.slices.store import SliceStore
from slicewise.training.stage import RECORD, WEIGHTS, load_weights


def make_bundle(
    store: Path, weights: Path, calibration: Path, evaluation: Path, model: ModelConfig, name: str, out: Path
) -> Bundle:
    """Write the bundle of a trained, calibrated and evaluated model.

    Args:
        store: The slice store the model was trained on; its preprocessing goes into the bundle.
        weights: The folder of the last stage.
        calibration: The folder of ``calibration.json``.
        evaluation: The folder of ``metrics.json``.
        model: The section ``model``.
        name: The model's name.
        out: The bundle's folder.
    """
    index = SliceStore(store).index
    fitted = read_calibration(calibration)
    metrics = read_result(evaluation / METRICS_FILE, "evaluate")
    ood = read_ood(calibration)
    meta = BundleMeta(
        name=name,
        # The weights are in the bundle; where the encoder once started from is a path on this machine.
        architecture=model.model_copy(update={"encoder_weights": None}),
        preprocessing=index.preprocessing,
        trained_regions=tuple(read_result(weights / RECORD, "train")["trained_regions"]),
        calibration=fitted.calibration,
        postprocess=fitted.postprocess,
        ood=ood,
        metrics=key_figures(metrics) | {"gate": {key: metrics["verdict"][key] for key in ("passed", "reasons")}},
        synthetic=metrics["synthetic"],
        sources=index.sources,
        data_digest=index.data_digest,
    )
    about = (metrics, name, index.preprocessing.modalities)
    cards = {CARD: model_card(*about), CARD_JSON: dumps(model_card_json(*about), indent=2, ensure_ascii=False) + "\n"}
    copies = () if ood.threshold is None else (calibration / OOD_FILE,)
    return write_bundle(out, load_weights(weights / WEIGHTS), meta, cards, copies)


def key_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures that travel with a bundle, each with its interval and n."""
    figures = metrics["classification"]["slice"]["figures"]
    names = ("roc_auc", "pr_auc", "accuracy", "sensitivity", "specificity", "ece")
    dice = {f"dice_{region.lower()}": row["dice"] for region, row in metrics["segmentation"].items()}
    return {name: figures[name] for name in names if name in figures} | dice
