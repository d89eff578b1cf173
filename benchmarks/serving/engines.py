"""Which engine runs the network fastest on this CPU: one encoder and one decoder pass, all in one run, interleaved.

python benchmarks/serving/engines.py > benchmarks/results/serving_engines.json
taskset -c 0 python benchmarks/serving/engines.py > benchmarks/results/serving_engines_one_core.json

The best of several rounds counts, as other work on the machine only ever adds; CPU time stands beside it.
Engines that the project does not use are here too: that is how it was decided (docs/decisions/0021-cpu-engine.md).
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor, nn

from slicewise.config import ModelConfig
from slicewise.config.predictor import PLAIN
from slicewise.cpus import available_cpus
from slicewise.inference.engines.base import Engine, Plan
from slicewise.inference.engines.openvino_engine import OpenVinoEngine
from slicewise.inference.engines.torch_engine import TorchEngine
from slicewise.model.network import MultiTaskUNet, build_network

SIZE = 128
BATCHES = (1, 8, 32)
ROUNDS = {1: 25, 8: 9, 32: 4}
SLOW = {"torch_bf16"}  # emulated where the CPU has no bfloat16: one round tells
COMPILE_SECONDS = 180


class OrtEngine:
    """ONNX Runtime: two graphs, exported by torch."""

    def __init__(self, network: MultiTaskUNet, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        image = torch.zeros(2, 4, SIZE, SIZE)
        features = tuple(network.encoder(image))
        batch = torch.export.Dim("batch")
        with tempfile.TemporaryDirectory() as folder:
            self._sessions = []
            for name, module, example in (
                ("encoder", _Encoder(network), (image,)),
                ("decoder", _Decoder(network), features),
            ):
                path = str(Path(folder) / f"{name}.onnx")
                shapes = tuple({0: batch} for _ in example)
                with contextlib.redirect_stdout(io.StringIO()):
                    dynamic = (shapes,) if len(example) > 1 else shapes
                    torch.onnx.export(module.eval(), example, path, dynamo=True, dynamic_shapes=dynamic)
                self._sessions.append(onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"]))

    def features(self, image: Tensor) -> list[Tensor]:
        return self._run(0, [image])

    def regions(self, features: Sequence[Tensor]) -> Tensor:
        return self._run(1, features)[0]

    def _run(self, at: int, tensors: Sequence[Tensor]) -> list[Tensor]:
        session = self._sessions[at]
        names = [entry.name for entry in session.get_inputs()]
        given = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, given)]


class CompiledEngine:
    """torch.compile, with the batch size left open."""

    def __init__(self, network: MultiTaskUNet) -> None:
        self._encoder = torch.compile(network.encoder.levels, dynamic=True)
        self._decoder = torch.compile(network.decoder, dynamic=True)

    def features(self, image: Tensor) -> list[Tensor]:
        return self._encoder(image)

    def regions(self, features: Sequence[Tensor]) -> Tensor:
        return self._decoder(list(features))


class _Encoder(nn.Module):
    def __init__(self, network: MultiTaskUNet) -> None:
        super().__init__()
        self.encoder = network.encoder

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder.levels(image))


class _Decoder(nn.Module):
    def __init__(self, network: MultiTaskUNet) -> None:
        super().__init__()
        self.decoder = network.decoder

    def forward(self, *features: Tensor) -> Tensor:
        return self.decoder(list(features))


def main() -> None:
    threads = available_cpus()
    if sys.argv[1:]:
        torch.set_num_threads(threads)
        json.dump(_preset(sys.argv[1], {"torch": _eager, "torch_compile": CompiledEngine}), sys.stdout)
        return
    torch.set_num_threads(threads)
    result = {"size": SIZE, "threads": threads, "torch": torch.__version__, "presets": {}}
    makers: dict[str, Callable[[MultiTaskUNet], Engine]] = {
        "torch": _eager,
        "torch_channels_last": lambda network: TorchEngine(_last(network), Plan(channels_last=True), PLAIN),
        "torch_bf16": lambda network: TorchEngine(network, Plan(dtype="bf16"), PLAIN),
        "onnxruntime": lambda network: OrtEngine(network, threads),
        "openvino": lambda network: OpenVinoEngine(network, Plan("openvino"), SIZE, threads),
    }
    for preset in ("tiny", "small"):
        result["presets"][preset] = _preset(preset, makers) | {"torch_compile": _compiled(preset)}
    json.dump(result, sys.stdout, indent=1)


def _compiled(preset: str) -> dict:
    """torch.compile against eager torch, in a process that is given up when it takes too long."""
    command = [sys.executable, __file__, preset]
    try:
        found = subprocess.run(command, capture_output=True, timeout=COMPILE_SECONDS, check=True)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {COMPILE_SECONDS} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": error.stderr.decode().strip().splitlines()[-1][:200]}
    return json.loads(found.stdout)


def _eager(network: MultiTaskUNet) -> Engine:
    return TorchEngine(network, Plan(), PLAIN)


def _last(network: MultiTaskUNet) -> MultiTaskUNet:
    return copy.deepcopy(network).to(memory_format=torch.channels_last)


def _preset(preset: str, makers: dict[str, Callable[[MultiTaskUNet], Engine]]) -> dict:
    torch.manual_seed(0)
    network = build_network(4, ModelConfig(preset=preset)).eval().requires_grad_(False)
    engines, seconds = {}, {}
    for name, make in makers.items():
        start = time.perf_counter()
        engines[name] = make(network)
        with torch.inference_mode():
            for size in (2, 3):
                engines[name].regions(engines[name].features(torch.randn(size, 4, SIZE, SIZE)))
        seconds[name] = round(time.perf_counter() - start, 1)
    return {"load_seconds": seconds, "batches": {str(size): _batch(engines, size) for size in BATCHES}}


def _batch(engines: dict[str, Engine], size: int) -> dict:
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((size, 4, SIZE, SIZE), dtype=np.float32))
    wall: dict[str, list[float]] = {name: [] for name in engines}
    cpu: dict[str, list[float]] = {name: [] for name in engines}
    answers: dict[str, Tensor] = {}
    with torch.inference_mode():
        for turn in range(ROUNDS[size] + 1):  # the first warms up
            for name, engine in engines.items():
                if name in SLOW and (turn > 1 or size > 1):
                    continue
                start, used = time.perf_counter(), time.process_time()
                answers[name] = engine.regions(engine.features(image)).sigmoid()
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - used)
    best = {name: min(values[1:]) for name, values in wall.items() if values}
    used_least = {name: min(values[1:]) for name, values in cpu.items() if values}
    apart = {name: float((answer - answers["torch"]).abs().max()) for name, answer in answers.items()}
    return {
        "ms_per_slice": {name: round(1e3 * value / size, 2) for name, value in best.items()},
        "cpu_ms_per_slice": {name: round(1e3 * value / size, 2) for name, value in used_least.items()},
        "times_torch": {name: round(best["torch"] / value, 2) for name, value in best.items()},
        "probability_apart": {name: float(f"{value:.2g}") for name, value in apart.items()},
    }


if __name__ == "__main__":
    main()
