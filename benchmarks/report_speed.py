"""How long the report takes, and how large its page is: made-up patients, five pictures each.

Measured apart: drawing and saving the pictures (a part of ``evaluate``), the report from the folder of an evaluation
(``slicewise report --run``, with the model card and the checklists), and the comparison of two runs. The aim: the
report of 100 patients in under a minute, its page under 30 MB.

    python benchmarks/report_speed.py --out benchmarks/results/report_speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from slicewise.evaluation.overlays import draw_study, save_picture
from slicewise.evaluation.report import Side, write_comparison, write_report
from slicewise.files import write_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "evaluation"))
from metrics_v2 import make_metrics

MODALITIES = ("flair", "t1", "t1ce", "t2")
SLICES = 5


def made_slice(seed: int, size: int) -> dict[str, Any]:
    """A slice with about as much detail as a scan: its picture takes as many bytes as that of a BraTS patient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    head = (x / 0.36) ** 2 + (y / 0.44) ** 2 < 1
    distance = np.hypot(x - rng.uniform(-0.15, 0.15), y) + 0.3 * gaussian_filter(rng.normal(size=head.shape), 6)
    reference = np.stack([(distance < radius) & head for radius in (0.14, 0.09, 0.05)])
    predicted = np.roll(reference, rng.integers(-4, 5, 2), (1, 2)) & head
    tissue = [
        gaussian_filter(rng.normal(size=head.shape), 2) * 3 + rng.normal(0, 0.08, head.shape) for _ in MODALITIES
    ]
    planes = np.stack([(1 + part + reference[at % 3]) * head for at, part in enumerate(tissue)]).astype(np.float32)
    return {
        "planes": planes,
        "reference": reference,
        "predicted": predicted,
        "evidence": np.exp(-(distance**2) * 30) * head,
        "uncertainty": gaussian_filter((reference[0] ^ predicted[0]).astype(float), 1.5) * 0.69,
    }


def add_pictures(metrics: dict[str, Any], folder: Path, size: int) -> dict[str, float]:
    """Draw and save every picture; returns the time of that alone."""
    total = {"seconds": 0.0, "cpu_seconds": 0.0}
    for at, study in enumerate(metrics["studies"]):
        study["pictures"] = []
        for z in range(SLICES):
            made = made_slice(at * SLICES + z, size)
            name = f"pictures/{study['study']}/{z}.webp"
            for key, spent in timed(partial(_draw, made, study["study"], z, folder / name)).items():
                total[key] += spent
            study["pictures"].append({"file": name, "z": z, "caption": f"Slice {z}"})
    return {key: round(value, 2) for key, value in total.items()}


def _draw(made: dict[str, Any], study: str, z: int, path: Path) -> None:
    save_picture(draw_study(modalities=MODALITIES, title=f"{study}, slice {z}", **made), path)


def timed(call: Callable[[], Any]) -> dict[str, float]:
    """Wall-clock and CPU seconds; on a machine that does other things the second is the fairer one."""
    start, used = time.perf_counter(), time.process_time()
    call()
    return {"seconds": round(time.perf_counter() - start, 3), "cpu_seconds": round(time.process_time() - used, 3)}


def measure(patients: int, size: int, folder: Path) -> dict[str, Any]:
    runs = []
    for name, seed in (("a", 0), ("b", 1)):
        home = folder / name
        metrics = make_metrics(patients, seed=seed)
        drawing = add_pictures(metrics, home, size)
        write_json(home / "metrics.json", metrics)
        runs.append((home, metrics, drawing))
    home, metrics, drawing = runs[0]
    report = timed(lambda: write_report(metrics, home))
    sides = [Side(home.name, metrics, home) for home, metrics, _ in runs]
    comparison = timed(lambda: write_comparison(sides[0], sides[1], folder))
    return {
        "patients": patients,
        "pictures": patients * SLICES,
        "size": size,
        "draw_and_save": drawing,
        "report": report,
        "report_mb": round((home / "report.html").stat().st_size / 1e6, 2),
        "comparison": comparison,
        "comparison_mb": round((folder / "compare.html").stat().st_size / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--size", type=int, nargs="+", default=[128, 240], help="Of the network's slices.")
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    rows = []
    for size in words.size:
        with tempfile.TemporaryDirectory(prefix="slicewise-report-") as folder:
            rows.append(measure(words.patients, size, Path(folder)))
        print(json.dumps(rows[-1]))
    result = {"python": platform.python_version(), "cpus": os.cpu_count(), "load": os.getloadavg()[0], "rows": rows}
    if words.out:
        write_json(words.out, result)


if __name__ == "__main__":
    main()
