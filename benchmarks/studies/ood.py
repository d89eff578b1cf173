"""Which inputs the out-of-distribution score tells from held-out slices of real patients, and which it does not.

    python benchmarks/studies/ood.py --work WORK --kaggle FOLDER [--folds 0 1 2 3] [--store STORE]

``WORK`` is where ``run_arms.py both`` has trained. On each fold the score is fitted on the training patients,
calibrated on the validation patients, and judged on slices of the test patients: as they are, altered, and against
drawings of other things (``tests/inference/organs.py``). Every slice goes through the Predictor from its raw
intensities. What is there already is kept; the table is written into ``benchmarks/results/studies/ood.json``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "inference"))

import numpy as np
import torch
from figures import save_table
from numpy.typing import NDArray
from organs import ORGANS, PICTURES, inverted_head, negative
from recipes import MODEL
from sklearn.metrics import roc_auc_score

from slicewise.config import SliceConfig
from slicewise.evaluation.intervals import bootstrap
from slicewise.evaluation.ood import fit_ood
from slicewise.evaluation.outputs import group_names
from slicewise.files import read_json, write_json
from slicewise.inference.bundle import BundleMeta, write_bundle
from slicewise.inference.ood import OOD_FILE, PARTS
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput
from slicewise.inference.slice_statistics import describe_slices, pool_features
from slicewise.slices.foreground import find_foreground
from slicewise.slices.planes import cut
from slicewise.slices.split import load_split
from slicewise.slices.store import SliceStore
from slicewise.slices.transform import as_plane, prepare_slice
from slicewise.studies.dataset import load_dataset
from slicewise.studies.reading import read_study
from slicewise.studies.study import Study
from slicewise.training.stage import WEIGHTS, load_weights

SLICES = 12  # of each test study, evenly along it
DRAWINGS = 40
SIDE = 192
RESAMPLES, CONFIDENCE = 500, 0.95
Case = tuple[str, str, SliceInput]  # the case's name, the patient or the drawing, the slice


def real_cases(study: Study, group: str, zs: list[int], config: SliceConfig) -> Iterator[Case]:
    """A study's slices, as they are and altered; as FLAIR alone (one picture) and with all its sequences."""
    names, pixel_mm = study.modalities, study.spacing_mm[1:]
    for z in zs:
        image = study.image[:, z]
        there = [at for at, plane in enumerate(image) if np.ptp(plane) > 0]
        image, has = image[there], [names[at] for at in there]
        if "flair" not in has:
            continue
        flair = image[[has.index("flair")]]
        for kind, planes, called in (("flair", flair, ("flair",)), ("all", image, tuple(has))):
            head = find_foreground([as_plane(plane) for plane in planes], config.foreground_fraction)[0] > 0
            yield f"real, {kind}", group, SliceInput(planes, called, pixel_mm)
            yield f"mirrored, {kind}", group, SliceInput(planes[:, :, ::-1], called, pixel_mm)
            yield f"negative, {kind}", group, SliceInput(negative(planes), called, pixel_mm)
            yield f"head inverted, {kind}", group, SliceInput(inverted_head(planes, head), called, pixel_mm)
            yield f"upside down, {kind}", group, SliceInput(planes[:, ::-1], called, pixel_mm)
            yield f"on its side, {kind}", group, SliceInput(np.rot90(planes, axes=(1, 2)), called, pixel_mm[::-1])
        for other in ("t1", "t1ce", "t2"):
            if other in has:
                yield f"{other} as FLAIR, flair", group, SliceInput(image[[has.index(other)]], ("flair",), pixel_mm)
        if "t1" in has:
            swapped = [{"flair": "t1", "t1": "flair"}.get(name, name) for name in has]
            yield "FLAIR and T1 swapped, all", group, SliceInput(image, tuple(swapped), pixel_mm)


def other_planes(study: Study, group: str) -> Iterator[Case]:
    """Sagittal and coronal cuts of a volume with cubic voxels."""
    flair = study.modalities.index("flair")
    for plane in ("sagittal", "coronal"):
        volumes = [cut(channel, plane) for channel in study.channels]
        full = np.flatnonzero((volumes[flair] > 0).mean(axis=(1, 2)) > 0.05)
        for z in full[np.linspace(0, len(full) - 1, SLICES).astype(int)]:
            image = np.stack([volume[z] for volume in volumes])
            yield f"{plane}, flair", group, SliceInput(image[[flair]], ("flair",))
            yield f"{plane}, all", group, SliceInput(image, study.modalities)


def drawn_cases(config: SliceConfig) -> Iterator[Case]:
    """Drawings, as one FLAIR picture; and four of a kind as four sequences."""
    draws: dict[str, Callable[..., Any]] = {**ORGANS, **PICTURES}
    for name, draw in draws.items():
        for seed in range(DRAWINGS):
            group = f"{name} {seed}"
            yield f"{name}, flair", group, SliceInput(draw(np.random.default_rng(seed), SIDE)[None], ("flair",))
            if name in ORGANS:
                body = np.clip(draw(np.random.default_rng(seed), SIDE) / 1000, 0, 2)
                four = np.stack([body, np.sqrt(body), body**2, np.where(body > 0.1, 1.3 - 0.6 * body, body)])
            else:
                four = np.stack([draw(np.random.default_rng([seed, at]), SIDE) for at in range(4)])
            yield f"{name}, all", group, SliceInput(four, config.modalities)


def kaggle_cases(folder: Path) -> Iterator[Case]:
    """Every other picture of the Kaggle set, which enters by the channel for unknown sequences."""
    data = load_dataset(folder)
    for record in data.records[::2]:
        image = read_study(record, data.root).image[:, 0]
        yield "Kaggle picture, flair", record.study_id, SliceInput(image, ("unknown",))


def cases(work: Path, store: SliceStore, split: Path, kaggle: Path) -> Iterator[Case]:
    data = load_dataset(work / "dataset")
    records = {record.study_id: record for record in data.records}
    groups = group_names(split)
    for key in load_split(split).test:
        entry = store.studies[key]
        study = read_study(records[entry.study_id], data.root)
        rows = np.unique(np.linspace(0, len(entry.slices) - 1, SLICES).astype(int))
        yield from real_cases(
            study, groups[key], [entry.slices[int(row)].z for row in rows], store.index.preprocessing
        )
        if entry.source == "brats":
            yield from other_planes(study, groups[key])
    yield from drawn_cases(store.index.preprocessing)
    yield from kaggle_cases(kaggle)


def make_predictor(store: SliceStore, split: Path, weights: Path, out: Path) -> tuple[Predictor, dict[str, Any]]:
    """Fit the score and put it into a bundle."""
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    record = fit_ood(store.folder, split, weights, MODEL, out)
    seconds = time.perf_counter() - start
    meta = BundleMeta(architecture=MODEL, preprocessing=store.index.preprocessing, ood=record)
    bundle = write_bundle(out / "bundle", load_weights(weights / WEIGHTS), meta, copies=(out / OOD_FILE,))
    return Predictor(bundle, "cpu"), record.model_dump() | {"fit_seconds": round(seconds, 1)}


def run_fold(work: Path, store: SliceStore, fold: int, kaggle: Path, out: Path) -> dict[str, Any]:
    """Every case's scores on one fold, from the disk where they have been made before."""
    result = out / f"fold-{fold}.json"
    if result.exists():
        return dict(read_json(result))
    split = work / f"fold-{fold}" / "split"
    predictor, record = make_predictor(store, split, work / f"fold-{fold}" / "both" / "joint", out / f"fold-{fold}")
    rows: dict[str, list[Any]] = {}
    for name, group, item in cases(work, store, split, kaggle):
        (found,) = predictor.predict([item], PredictOptions(("classify",)))
        if isinstance(found, Prediction):
            scores = [found.ood_score, found.ood_flag, [found.ood_parts[part] for part in PARTS]]
            rows.setdefault(name, []).append([group, *scores])
        else:
            print(name, group, found)
    made = {"record": record, "rows": rows, "cost": cost(predictor, store)}
    write_json(result, made)
    return made


def cost(predictor: Predictor, store: SliceStore) -> dict[str, float]:
    """CPU milliseconds of the encoder and of the score, one slice of four sequences at a time; best of several."""
    config = store.index.preprocessing
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    raw = rng.uniform(50, 900, (len(config.modalities), SIDE, SIDE)) * (np.hypot(rows, columns) < 0.4)
    image = prepare_slice(raw, config.modalities, config).image[None]
    batch = predictor.to_input(image)
    scorer = predictor.bundle.ood(predictor.network)
    assert scorer is not None
    with torch.inference_mode():
        features = predictor.network.encoder(batch)
        encoder = best_ms(lambda: predictor.network.encoder(batch))
        statistics = best_ms(lambda: describe_slices(image))
        score = best_ms(lambda: scorer.score(image, pool_features(features)))
    share = round(score / encoder, 4)
    return {"encoder_ms": encoder, "score_ms": score, "of_that_statistics_ms": statistics, "share": share}


def best_ms(run: Callable[[], Any], repeats: int = 30) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return round(1e3 * min(times), 3)


def summarise(folds: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """AUC against the real slices that show the same sequences, within folds; flagged slices; n."""
    names = sorted({name for found in folds.values() for name in found["rows"]})
    return {name: case_figures(name, folds) for name in names}


def case_figures(name: str, folds: dict[int, dict[str, Any]]) -> dict[str, Any]:
    typical = "real, " + name.rsplit(", ", 1)[1]
    kinds = (typical, name) if name != typical else (name,)
    table = [
        (fold, case == name, *row)
        for fold, found in folds.items()
        for case in kinds
        for row in found["rows"].get(case, [])
    ]
    fold_of, truth = np.array([row[0] for row in table]), np.array([row[1] for row in table])
    groups = [row[2] for row in table]
    score, flag = np.array([row[3] for row in table]), np.array([row[4] for row in table])
    parts = np.array([row[5] for row in table])
    _, patient, size = np.unique([f"{row[1]} {row[2]}" for row in table], return_inverse=True, return_counts=True)
    weights = 1 / size[patient]

    def auc(values: NDArray[Any], rows: NDArray[np.intp]) -> float | None:
        """Within folds, averaged over them, every patient with the same weight."""
        found = []
        for fold in folds:
            mine = rows[fold_of[rows] == fold]
            if len(np.unique(truth[mine])) == 2:
                found.append(roc_auc_score(truth[mine], values[mine], sample_weight=weights[mine]))
        return float(np.mean(found)) if found else None

    mine = np.flatnonzero(truth)

    def flagged(rows: NDArray[np.intp]) -> float:
        return float(np.average(flag[mine][rows], weights=weights[mine][rows]))

    everything = np.arange(len(table))
    interval = bootstrap(lambda rows: auc(score, rows), groups, RESAMPLES, CONFIDENCE).model_dump()
    return {
        "slices": int(truth.sum()),
        "auc": interval,
        "flagged": bootstrap(flagged, [groups[at] for at in mine], RESAMPLES, CONFIDENCE).model_dump(),
        "auc_by_part": {part: auc(parts[:, at], everything) for at, part in enumerate(PARTS)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kaggle", type=Path, required=True, help="a dataset folder of the Kaggle images")
    parser.add_argument("--store", type=Path, help="by default WORK/store")
    parser.add_argument("--out", type=Path, help="by default WORK/ood")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3])
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(1)
    store = SliceStore(options.store or options.work / "store")
    out = options.out or options.work / "ood"
    folds = {fold: run_fold(options.work, store, fold, options.kaggle, out) for fold in options.folds}
    table = {
        "folds": {str(fold): {"ood": found["record"], "cost": found["cost"]} for fold, found in folds.items()},
        "cases": summarise(folds),
    }
    for name, row in table["cases"].items():
        auc = "" if row["auc"]["value"] is None else f"{row['auc']['value']:.2f}"
        by_part = " ".join(f"{part} {value:.2f}" for part, value in row["auc_by_part"].items() if value is not None)
        print(f"{name:28s} {row['slices']:5d} AUC {auc:5s} flagged {row['flagged']['value']:.2f} {by_part}")
    save_table("ood", table)


if __name__ == "__main__":
    main()
