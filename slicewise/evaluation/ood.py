"""The out-of-distribution score in ``calibrate``: fitted on training slices, its threshold set on held-out ones."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from slicewise.config import ModelConfig
from slicewise.errors import StoreError
from slicewise.evaluation.ood_calibrate import calibrate, hold_out
from slicewise.evaluation.ood_fit import fit_typical
from slicewise.evaluation.ood_slices import SideSlices, held_out_sample, training_sample
from slicewise.evaluation.outputs import load_network
from slicewise.files import atomic_path, read_result, write_json
from slicewise.inference.ood import FALSE_ALARM, OOD_FILE, OOD_RECORD, OodRecord, score_parts
from slicewise.inference.ood_model import save_model
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.store import SliceStore

logger = logging.getLogger(__name__)
TRAIN_SLICES = 800
VALIDATION_SLICES = 400
FEWEST = 20


def fit_ood(
    store: Path, split: Path, weights: Path, model: ModelConfig, out: Path, false_alarm: float = FALSE_ALARM
) -> OodRecord:
    """Fit the score on the training split and calibrate it on the validation split.

    Writes ``ood.json`` into ``out`` and, where there are enough slices, ``ood.safetensors``.

    Args:
        store: The slice store.
        split: The folder of ``split.json``.
        weights: The folder of the trained weights.
        model: The section ``model``.
        out: The folder to write into.
        false_alarm: The share of a held-out patient's slices that may be flagged, averaged over the patients.

    Returns:
        The content of ``ood.json``.

    Raises:
        StoreError: The store or the split cannot be read.
    """
    opened = SliceStore(store)
    train = SideSlices.open(opened, split, "train", TRAIN_SLICES)
    held = SideSlices.open(opened, split, "val", VALIDATION_SLICES)
    (out / OOD_FILE).unlink(missing_ok=True)
    record = OodRecord(reason=f"fewer than {FEWEST} training or validation slices")
    if min(len(train.rows), len(held.rows)) >= FEWEST:
        record = _fit(load_network(opened, weights, model), train, held, out / OOD_FILE, false_alarm)
    write_json(out / OOD_RECORD, record.model_dump(mode="json"))
    logger.info("out of distribution: threshold %s %s", record.threshold, record.reason)
    return record


def read_ood(folder: Path) -> OodRecord:
    """Read ``ood.json`` of the ``calibrate`` stage.

    Raises:
        StoreError: It is missing or damaged.
    """
    try:
        return OodRecord.model_validate(read_result(folder / OOD_RECORD, "calibrate"))
    except ValidationError as error:
        raise StoreError(f"{folder / OOD_RECORD} is damaged", "run 'slicewise calibrate' again") from error


def _fit(network: MultiTaskUNet, train: SideSlices, held: SideSlices, path: Path, false_alarm: float) -> OodRecord:
    sample, wrong = training_sample(network, train)
    typical = fit_typical(sample, wrong)
    held_out = hold_out(typical, sample, wrong, held_out_sample(network, held))
    if not len(held_out.groups):
        return OodRecord(reason="no held-out slice has modalities that training had enough slices of")
    model = calibrate(typical, held_out)
    scores = score_parts(model, held_out.distances.present, model.parts(held_out.distances))
    threshold = alarm_threshold(scores, held_out.weights, false_alarm)
    with atomic_path(path) as temporary:
        save_model(model, temporary)
    modalities = train.data.store.index.preprocessing.modalities
    return OodRecord(
        threshold=threshold,
        false_alarm=false_alarm,
        flagged=float(np.average(scores > np.float32(threshold), weights=held_out.weights)),
        train_slices=len(train.rows),
        train_patients=train.patients,
        validation_slices=len(held.rows),
        validation_patients=held.patients,
        seen=tuple(name for name, seen in zip(modalities, model.channels.seen, strict=True) if seen),
    )


def alarm_threshold(scores: NDArray[np.float32], weights: NDArray[np.float64], false_alarm: float) -> float:
    """The least of the scores above which at most a share ``false_alarm`` of the weight lies."""
    order = np.argsort(scores, kind="stable")
    above = 1 - np.cumsum(weights[order]) / weights.sum()
    return float(scores[order][np.flatnonzero(above <= false_alarm + 1e-12)[0]])
