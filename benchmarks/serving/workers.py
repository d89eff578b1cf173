"""TorchServe's workers and their threads: what a second worker brings, and what it costs a lone request.

python benchmarks/serving/workers.py [BUNDLE] [--engine torch|openvino]

One stack for each way runs all the time; rounds are interleaved and medians reported. ``batches`` and ``singles`` are
slices a second as in ``speed.py``; the rest is milliseconds of lone requests: a PNG of 256×256 to ``/classify``, and
the segmentation of 1, 8 and 32 slices.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import httpx
from common import heads, machine, running, save, v2_request, workspace
from speed import BATCH, CLIENT, ROUNDS, SEGMENT, bare, interleaved, picture, poster, rate, timed

from slicewise.config import PredictorSettings, ServeConfig
from slicewise.cpus import available_cpus
from slicewise.inference.predictor import Predictor

WAYS = {
    "1 worker, all threads": {"workers": 1, "threads": "auto"},
    "2 workers, half of the threads each": {"workers": 2, "threads": max(1, available_cpus() // 2)},
    "2 workers, all threads each": {"workers": 2, "threads": "auto"},
}
LONE = (1, 8, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--engine", default="torch", choices=("torch", "openvino"))
    given = parser.parse_args()
    how = {"engine": given.engine, "dtype": "fp32", "channels_last": False}
    result: dict[str, Any] = {"machine": machine(), "engine": given.engine}
    with workspace(given.bundle) as (work, bundle), contextlib.ExitStack() as stacks:
        predictor = Predictor.load(bundle, "cpu", settings=PredictorSettings.model_validate(how))
        predictor.warm_up()
        network = bare(predictor, heads(BATCH))
        rates = {"bare": lambda: rate(network, 1, BATCH)}
        lone = {"bare 8": timed(network)}
        for number, (name, way) in enumerate(WAYS.items()):
            predict = how | {"threads": way["threads"]}
            config = ServeConfig.model_validate({"workers": way["workers"], "predictor": predict})
            state = stacks.enter_context(running(bundle, config, work / str(number)))
            client = stacks.enter_context(httpx.Client(base_url=state.gateway_url, **CLIENT))
            calls = segmenters(client)
            rates[f"{name}: batches"] = lambda call=calls[BATCH]: rate(call, 2, BATCH)
            rates[f"{name}: singles"] = lambda call=calls[1]: rate(call, BATCH, 1)
            lone |= {f"{name}: {count}": timed(call) for count, call in calls.items()}
            lone[f"{name}: png"] = timed(poster(client, (picture(256), {"content-type": "image/png"}), "/classify"))
        result |= {"slices_per_second": interleaved(rates, ROUNDS), "ms": interleaved(lone, 5 * ROUNDS)}
    save(f"workers_{given.engine}", result | {"load_average_after": machine()["load_average"]})


def segmenters(client: httpx.Client) -> dict[int, Any]:
    """Number of slices to a call that has them segmented."""
    images = heads(max(LONE))
    return {count: poster(client, v2_request(images[:count], SEGMENT, ("mask",))) for count in LONE}


if __name__ == "__main__":
    main()
