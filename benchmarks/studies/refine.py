"""What two cheap additions give a trained network: the mirror image's mean, and no mask on slices called tumour-free.

    python benchmarks/studies/refine.py --work WORK

``WORK`` is where ``run_arms.py both`` has trained. Trains nothing. A slice is called tumour-free below the threshold
of greatest sensitivity + specificity on the fold's validation slices. Which addition is best is read off the
validation patients; the test patients' figures of all are given beside it. Written into
``benchmarks/results/studies/refine.json``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from arms import trained
from figures import mean_over_patients, pooled, save_table, youden_cut
from numpy.typing import NDArray
from recipes import MODEL, SEED, SIZE
from summarise import is_brats, is_lgg
from withheld import SHOWN, Shown

from slicewise.config import REGIONS
from slicewise.evaluation.outputs import load_network
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.split import load_split
from slicewise.slices.store import SliceStore
from slicewise.training.validate import overlap

WAYS = ("plain", "gated", "mirrored", "mirrored and gated")


def answers(network: MultiTaskUNet, data: Shown) -> dict[str, Any]:
    """Per slice: study, pixel counts ``[N, R, 3]`` and tumour logits, alone and averaged with the mirror image."""
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in ("study", "truth", "plain", "mirrored", "p", "m")}
    for batch in data.batches(range(len(data)), 32):
        head = batch.image.any(dim=1, keepdim=True)
        with torch.inference_mode():
            one, two = network(batch.image), network(batch.image.flip(3))
        assert one.regions is not None
        mean = (one.regions + two.regions.flip(3)) / 2
        for name, regions in (("plain", one.regions), ("mirrored", mean)):
            found[name].append(overlap((regions > 0) & head, batch.regions > 0))
        truth = torch.where(batch.tumour_known > 0, batch.tumour, torch.nan)
        rows = {"study": batch.study, "truth": truth, "p": one.tumour, "m": (one.tumour + two.tumour) / 2}
        for name, values in rows.items():
            found[name].append(np.asarray(values))
    return {name: np.concatenate(values) for name, values in found.items()}


def counted(found: dict[str, Any], way: str, cut: dict[str, float], keys: Sequence[str]) -> dict[str, Any]:
    """Pixel counts per study, in the form that ``figures.pooled`` reads."""
    kind, logits = ("mirrored", "m") if way.startswith("mirrored") else ("plain", "p")
    counts = found[kind].copy()
    if way.endswith("gated"):
        counts[found[logits] < cut[logits], :, :2] = 0
    sums = np.zeros((len(keys), len(REGIONS), 3))
    np.add.at(sums, found["study"], counts)
    return {"studies": list(keys), "counts": sums.tolist(), "slice_dice": [[] for _ in keys]}


def judge_fold(work: Path, store: SliceStore, fold: int) -> dict[str, Any]:
    """Side → modalities shown → way → counts."""
    home = work / f"fold-{fold}"
    split = load_split(home / "split")
    network = load_network(store, home / "both" / "joint", MODEL)
    result: dict[str, Any] = {"val": {}, "test": {}}
    for name, shown in SHOWN.items():
        data = {side: Shown(store, split.side(side), shown) for side in ("val", "test")}
        found = {side: answers(network, of) for side, of in data.items()}
        known = ~np.isnan(found["val"]["truth"])
        cut = {key: youden_cut(found["val"][key][known], found["val"]["truth"][known]) for key in ("p", "m")}
        for side, of in data.items():
            result[side][name] = {way: counted(found[side], way, cut, of.keys) for way in WAYS}
    return result


def table(folds: list[dict[str, Any]], side: str, keep: Callable[[str], bool]) -> dict[str, Any]:
    """Modalities shown → way → mean Dice over patients per region."""
    return {
        shown: {
            way: {
                region: mean_over_patients(values)
                for region, values in pooled([fold[side][shown] for fold in folds], way, keep).items()
                if values and region != "slices"
            }
            for way in WAYS
        }
        for shown in SHOWN
    }


def main() -> None:
    options, store = trained(__doc__)
    folds = [judge_fold(options.work, store, fold) for fold in options.folds]
    sets = {"lgg": is_lgg, "brats": is_brats, "together": lambda _: True}
    result = {side: {name: table(folds, side, keep) for name, keep in sets.items()} for side in ("val", "test")}
    save_table("refine", {"seed": SEED, "image_size": SIZE, "folds": options.folds, **result})


if __name__ == "__main__":
    main()
