"""How the Predictor runs a network on a machine; its answers are the same to a stated tolerance."""

from __future__ import annotations

from typing import Literal

from slicewise.config.base import Count, Section

EngineName = Literal["auto", "torch", "openvino"]


class PredictorSettings(Section):
    """What the Predictor may choose; ``auto`` is decided by a measured probe at the start.

    Attributes:
        engine: What computes encoder and decoder on a CPU: torch, or OpenVINO where it is installed.
        dtype: ``bf16`` only helps on CPUs that have it; ``auto`` tries it there and on no other.
        channels_last: Memory layout of torch's tensors.
        threads: CPU threads; ``auto`` takes as many as the process may use.
        probe_seconds: About how long the probe may time its candidates.
        amp: On CUDA: half-precision autocast.
        compile: On CUDA: ``torch.compile``.
        cuda_graphs: On CUDA: replay the compiled network as CUDA graphs; compiles it.
        pinned_memory: On CUDA: copy batches from page-locked memory.
    """

    engine: EngineName = "auto"
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    threads: Literal["auto"] | Count = "auto"
    probe_seconds: float = 4.0
    amp: bool = False
    compile: bool = False
    cuda_graphs: bool = False
    pinned_memory: bool = True


# One way only, so nothing is timed: what a caller gets who asks for nothing.
PLAIN = PredictorSettings(engine="torch", dtype="fp32", channels_last=False)
