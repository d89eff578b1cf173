"""What the Predictor adds to the bare network, and what its options cost; ratios of one run, interleaved.

taskset -c 0 python benchmarks/serving/predictor.py > benchmarks/results/serving_predictor.json
taskset -c 0 python benchmarks/serving/predictor.py BUNDLE > benchmarks/results/serving_predictor_trained.json

Without a bundle: fresh networks of the presets tiny and small at 128 pixels, untrained, which costs the same.
``conditional_gain``: unconditional over conditional time with 30 % of the slices decoded.
``uncertainty_passes``: time of 10 dropout samples and the mirrored view, answer included, in forward passes of the
same engine, and in those of torch. ``network_share``: the bare network's share of ``predict`` for 8 slices of
240×240.
Each by the wall clock and, as other work on the machine distorts that, by this process's CPU time.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from slicewise.config import ModelConfig, PredictorSettings, SliceConfig
from slicewise.cpus import available_cpus
from slicewise.inference.bundle import BundleMeta, write_bundle
from slicewise.inference.predictor import PredictOptions, Predictor
from slicewise.inference.profile import made_up_slices
from slicewise.model.network import build_network
from slicewise.slices.transform import prepare_slice

SIZE, BATCH, MIX, TUMOUR_SHARE, ROUNDS = 128, 8, 20, 0.3, 9
SAMPLED = PredictOptions(("classify", "segment", "uncertainty"), n_mc_samples=10, use_tta=True)


def main() -> None:
    threads = available_cpus()
    result: dict = {"threads": threads, "rounds": ROUNDS, "bundles": {}}
    with tempfile.TemporaryDirectory() as folder:
        given = [Path(word) for word in sys.argv[1:]]
        for bundle in given or [_fresh(Path(folder), preset) for preset in ("tiny", "small")]:
            result["bundles"][bundle.name] = {
                engine: _engine(bundle, engine, threads) for engine in ("torch", "openvino")
            }
    json.dump(result, sys.stdout, indent=1)


def _fresh(folder: Path, preset: str) -> Path:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"preset": preset})
    meta = BundleMeta(architecture=config, preprocessing=SliceConfig(size=SIZE))
    return write_bundle(folder / f"{preset}-{SIZE}", build_network(4, config).state_dict(), meta).folder


def _engine(bundle: Path, engine: str, threads: int) -> dict:
    settings = PredictorSettings.model_validate({"engine": engine, "dtype": "fp32", "channels_last": False})
    predictor = Predictor.load(bundle, "cpu", threads, settings)
    assert predictor.probe.chosen.startswith(engine)
    predictor.warm_up()
    slices = made_up_slices(("flair",), BATCH)
    mix = made_up_slices(("flair",), MIX)
    said = np.array([answer.tumor_probability for answer in predictor.predict(mix)])
    cut = float(np.quantile(said, 1 - TUMOUR_SHARE))
    config = predictor.meta.preprocessing
    batch = np.stack([prepare_slice(item.image, item.modalities, config).image for item in slices])
    image = predictor.to_input(batch)
    wall, cpu = _time(
        {
            "bare": lambda: _bare(predictor, image),
            "torch": lambda: _torch(predictor, image),
            "predict": lambda: predictor.predict(slices),
            "uncertainty": lambda: predictor.predict(slices, SAMPLED),
            "unconditional": lambda: predictor.predict(mix),
            "conditional": lambda: predictor.predict(mix, PredictOptions(threshold=cut, conditional=True)),
        }
    )
    decoded = float((said >= cut).mean())
    return {"decoded_share": decoded, "wall": _ratios(wall), "cpu": _ratios(cpu)}


def _bare(predictor: Predictor, image: torch.Tensor) -> None:
    with torch.inference_mode():
        features = predictor.engine.features(image)
        predictor.network.head(features[-1])
        predictor.engine.regions(features)


def _torch(predictor: Predictor, image: torch.Tensor) -> None:
    with torch.inference_mode():
        predictor.network(image)


def _time(calls: dict[str, Callable[[], object]]) -> tuple[dict[str, float], dict[str, float]]:
    """Least seconds of each call, as other work only ever adds: by the wall clock, and of this process's CPU."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            start, used = time.perf_counter(), time.process_time()
            call()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    # The first turn warms up.
    return tuple({name: min(values[1:]) for name, values in found.items()} for found in (wall, cpu))  # type: ignore[return-value]


def _ratios(seconds: dict[str, float]) -> dict:
    return {
        "ms": {name: round(1e3 * value, 1) for name, value in seconds.items()},
        "conditional_gain": round(seconds["unconditional"] / seconds["conditional"], 2),
        "uncertainty_passes": round(seconds["uncertainty"] / seconds["bare"], 2),
        "uncertainty_torch_passes": round(seconds["uncertainty"] / seconds["torch"], 2),
        "network_share": round(seconds["bare"] / seconds["predict"], 3),
    }


if __name__ == "__main__":
    main()
