"""The ``calibrate`` stage: everything that the validation split decides beside the weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slicewise.config import REGIONS, CalibrateConfig, ModelConfig
from slicewise.errors import StoreError
from slicewise.evaluation.calibration_report import side_figures
from slicewise.evaluation.choose_calibrator import choose_calibrator
from slicewise.evaluation.conformal import conformal_band
from slicewise.evaluation.decision import choose_threshold
from slicewise.evaluation.fit_postprocess import fit_postprocess
from slicewise.evaluation.ood import fit_ood
from slicewise.evaluation.outputs import Outputs, collect_outputs
from slicewise.files import read_result, write_json
from slicewise.inference.calibration import Calibration, Calibrator
from slicewise.inference.postprocess import PostProcess
from slicewise.progress import Update

logger = logging.getLogger(__name__)
FILE = "calibration.json"


@dataclass(frozen=True)
class Fitted:
    """What the stage wrote.

    Attributes:
        calibration: What goes into the bundle.
        postprocess: What is done to the masks; goes into the bundle too.
        tried: Every post-processing that was tried, with what it gave.
        validation: Output → the validation's figures before and after.
    """

    calibration: Calibration
    postprocess: PostProcess
    tried: list[dict[str, Any]]
    validation: dict[str, Any]


def calibrate_stage(
    store: Path,
    split: Path,
    weights: Path,
    model: ModelConfig,
    config: CalibrateConfig,
    out: Path,
    update: Update | None = None,
) -> dict[str, Any]:
    """Fit the calibration on all slices of the validation split and write ``calibration.json`` into ``out``.

    Returns:
        The content of that file: ``calibration`` and ``postprocess`` (what goes into the bundle), ``tried``, and
        ``validation`` (figures before and after, of the slices and of each region).

    Raises:
        StoreError: The store or the split cannot be read.
        TrainingError: The network's outputs are not finite.
    """
    outputs = collect_outputs(store, split, weights, model, "val", update=update)
    calibration = fit_calibration(outputs, config)
    postprocess, tried = fit_postprocess(store, split, weights, model, calibration, update)
    result = {
        "calibration": calibration.model_dump(mode="json"),
        "postprocess": postprocess.model_dump(mode="json"),
        "tried": tried,
        "validation": side_figures(outputs, calibration, config),
    }
    write_json(out / FILE, result)
    for name, calibrator in {"tumour": calibration.tumour, **calibration.regions}.items():
        logger.info("calibration of %s: %s (%s)", name, calibrator.method, calibrator.reason)
    logger.info("threshold %.3f; %s", calibration.threshold.value, calibration.abstain.reason)
    fit_ood(store, split, weights, model, out)
    return result


def fit_calibration(outputs: Outputs, config: CalibrateConfig) -> Calibration:
    """Everything that the bundle needs to turn logits into probabilities and decisions.

    Args:
        outputs: Of the validation split.
        config: The section ``calibrate``.

    Raises:
        TrainingError: The network's outputs are not finite.
    """
    slices = outputs.slices
    tumour = choose_calibrator(slices, config.methods, config.folds, "tumour")
    regions = {}
    for name in REGIONS:
        pixels = outputs.pixels.get(name)
        regions[name] = (
            Calibrator(reason="not fitted: no validation study knows this region")
            if pixels is None
            else choose_calibrator(pixels, ("temperature",), config.folds, name)
        )
    threshold = choose_threshold(tumour.apply(slices.logits), slices.truth, config)
    abstain = conformal_band(slices, tumour, threshold.value, config.alpha)
    return Calibration(tumour=tumour, regions=regions, threshold=threshold, abstain=abstain)


def read_calibration(folder: Path) -> Fitted:
    """What the stage wrote into ``folder``.

    Raises:
        StoreError: Missing, damaged, or of another release.
    """
    content = read_result(folder / FILE, "calibrate")
    try:
        calibration = Calibration.model_validate(content["calibration"])
        postprocess = PostProcess.model_validate(content["postprocess"])
        return Fitted(calibration, postprocess, content["tried"], content["validation"])
    except (ValidationError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"{folder / FILE} is no calibration: {reason}", "run 'slicewise calibrate' again") from error
