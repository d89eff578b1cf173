"""Served speed as ratios within one run: rounds are interleaved, medians reported.

python benchmarks/serving/speed.py [BUNDLE] [--engine torch|openvino] [--dtype fp32|bf16]

(a) ``served_share``: throughput of segmentation (V2 binary, 8 slices of 240×240 a request, two clients; and 8 clients
with one slice each) over that of the bare network at batch 8 on the same cores and engine. (b) ``over_naive``: the
same over ``naive.py`` with 8 clients. (c) ``conditional_gain`` on a mix with 30 % tumour slices. (d) ``overhead_ms``:
``/classify`` of one 256×256 PNG over ``Predictor.predict`` in this process, at p50. (e) ``uncertainty_passes``: 10
dropout samples with the mirror image over one forward pass, slice by slice.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
from common import BACKENDS, heads, machine, median, running, save, v2_request, workspace
from PIL import Image

from serving.environment import child_environment
from serving.ports import LOOPBACK, free_port
from slicewise.config import PredictorSettings, ServeConfig
from slicewise.cpus import available_cpus
from slicewise.inference.predictor import PredictOptions, Predictor, SliceInput
from slicewise.slices.transform import prepare_slice

PATH = "/v2/models/slicewise/infer"
SEGMENT = {"tasks": "classify,segment", "modalities": "flair"}
UNCERTAIN = {"tasks": "classify,segment,uncertainty", "modalities": "flair", "n_mc_samples": 10, "use_tta": True}
BATCH, MIX, ROUNDS, SPAN_S = 8, 20, 5, 1.5
Call = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--engine", default="torch", choices=("torch", "openvino"))
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    given = parser.parse_args()
    name = given.engine if given.dtype == "fp32" else f"{given.engine}_{given.dtype}"
    how = PredictorSettings.model_validate({"engine": given.engine, "dtype": given.dtype, "channels_last": False})
    result: dict[str, Any] = {"machine": machine(), "engine": name, "rounds": ROUNDS, "backends": {}}
    with workspace(given.bundle) as (work, bundle), naive_server(bundle) as naive:
        predictor = Predictor.load(bundle, "cpu", available_cpus(), how)
        predictor.warm_up()
        for kind in BACKENDS:
            config = ServeConfig.model_validate({"backend": kind, "predictor": how})
            with (
                running(bundle, config, work / kind) as state,
                httpx.Client(base_url=state.gateway_url, **CLIENT) as c,
            ):
                result["backends"][kind] = measured(predictor, c, naive)
    result["load_average_after"] = machine()["load_average"]
    save(f"speed_{name}", result)


CLIENT: dict[str, Any] = {"timeout": 120, "trust_env": False}


@contextlib.contextmanager
def naive_server(bundle: Path) -> Any:
    """The naive server, warm."""
    port = free_port()
    script = Path(__file__).with_name("naive.py")
    process = subprocess.Popen([sys.executable, str(script), str(bundle), str(port)], env=child_environment())
    try:
        with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", **CLIENT) as client:
            while True:
                with contextlib.suppress(httpx.ConnectError):
                    client.get("/openapi.json")
                    break
                if process.poll() is not None:
                    raise SystemExit("the naive server ended")
                time.sleep(0.2)
            yield client
    finally:
        process.terminate()
        process.wait()


def measured(predictor: Predictor, client: httpx.Client, naive: httpx.Client) -> dict[str, Any]:
    """All five of one backend."""
    rates = throughputs(predictor, client, naive)
    lone = latencies(predictor, client)
    bare = rates["bare"]
    return {
        "slices_per_second": rates,
        "served_share": {name: median([rates[name] / bare]) for name in ("batches", "singles")},
        "over_naive": {name: median([rates[name] / rates["naive"]]) for name in ("batches", "singles")},
        "ms": lone,
        "conditional_gain": median([lone["unconditional"] / lone["conditional"]]),
        "overhead_ms": round(lone["classify"] - lone["predict"], 1),
        "uncertainty_passes": median([lone["uncertainty"] / lone["pass"]]),
        "uncertainty_passes_at_8": median([lone["uncertainty_8"] / lone["pass_8"]]),
    }


def throughputs(predictor: Predictor, client: httpx.Client, naive: httpx.Client) -> dict[str, float]:
    """Slices per second of the bare network, of the gateway, and of the naive server."""
    images = heads(BATCH)
    one, eight = (poster(client, v2_request(images[:count], SEGMENT, ("mask",))) for count in (1, BATCH))
    body, headers = orjson.dumps({"image": images[0].tolist()}), {"content-type": "application/json"}
    plain = poster(naive, (body, headers), "/segment")
    network = bare(predictor, images)
    ways = {
        "bare": lambda: rate(network, 1, BATCH),
        "batches": lambda: rate(eight, 2, BATCH),
        "singles": lambda: rate(one, BATCH, 1),
        "naive": lambda: rate(plain, BATCH, 1),
    }
    return interleaved(ways, ROUNDS)


def latencies(predictor: Predictor, client: httpx.Client) -> dict[str, float]:
    """Medians in milliseconds, of single calls one after the other."""
    images, mix = heads(BATCH), heads(MIX)
    said = [item.tumor_probability for item in predictor.predict([SliceInput(i, ("flair",)) for i in mix])]
    cut = float(np.quantile(said, 0.7))
    png = picture(256)
    decode = PredictOptions(("classify",))
    ways = {
        "unconditional": poster(client, v2_request(mix, SEGMENT, ("mask",))),
        "conditional": poster(client, v2_request(mix, SEGMENT | {"conditional": True, "threshold": cut}, ("mask",))),
        "uncertainty": poster(client, v2_request(images[:1], UNCERTAIN)),
        "pass": bare(predictor, images[:1]),
        "uncertainty_8": poster(client, v2_request(images, UNCERTAIN)),
        "pass_8": bare(predictor, images),
    }
    found = interleaved({name: timed(call) for name, call in ways.items()}, 2 * ROUNDS)
    small = {
        "classify": poster(client, (png, {"content-type": "image/png"}), "/classify"),
        "predict": lambda: predictor.predict([SliceInput(opened(png), ("unknown",))], decode),
    }
    return found | interleaved({name: timed(call) for name, call in small.items()}, 80)


def opened(png: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(png)))[np.newaxis]


def picture(side: int) -> bytes:
    image = heads(1, side)[0][0]
    buffer = io.BytesIO()
    Image.fromarray((image / image.max() * 255).clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def bare(predictor: Predictor, images: list[Any]) -> Call:
    """Encoder, head and decoder of the engine on one prepared batch."""
    import torch

    config = predictor.meta.preprocessing
    batch = predictor.to_input(np.stack([prepare_slice(image, ("flair",), config).image for image in images]))

    def run() -> None:
        with torch.inference_mode():
            features = predictor.engine.features(batch)
            predictor.network.head(features[-1])
            predictor.engine.regions(features)

    return run


def poster(client: httpx.Client, request: tuple[bytes, dict[str, str]], path: str = PATH) -> Call:
    body, headers = request

    def post() -> None:
        client.post(path, content=body, headers=headers).raise_for_status()

    return post


def rate(call: Call, clients: int, slices: int) -> float:
    """Slices per second of so many clients that ask again at once."""
    start = time.perf_counter()

    def ask(_: int) -> int:
        done = 0
        while time.perf_counter() - start < SPAN_S:
            call()
            done += 1
        return done

    with ThreadPoolExecutor(clients) as pool:
        done = sum(pool.map(ask, range(clients)))
    return done * slices / (time.perf_counter() - start)


def timed(call: Call) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)

    return run


def interleaved(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Medians over rounds in which each has its turn; the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            found[name].append(way())
    return {name: median(values[1:]) for name, values in found.items()}


if __name__ == "__main__":
    main()
