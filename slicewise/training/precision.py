"""Mixed precision where the device has it."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from slicewise.cpus import trains_in_bf16


class Precision:
    """Autocast and gradient scaling for one device.

    Args:
        name: ``auto`` takes bf16 on CUDA devices that have it and fp16 on older ones; bf16 on CPUs whose
            instructions for it were measured to be faster (AMX, AVX-512 BF16), and fp32 on others.
        device: Where the network lies.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.device = device
        self.name = name if name != "auto" else self._best(device)
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)
        # Only fp16 has so few exponent bits that gradients must be scaled.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.name == "fp16")

    @staticmethod
    def _best(device: torch.device) -> str:
        if device.type != "cuda":
            return "bf16" if trains_in_bf16() else "fp32"
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"

    def autocast(self) -> AbstractContextManager[object]:
        """The context of the forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` to those that are there."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimiser: torch.optim.Optimizer, network: nn.Module, grad_clip: float) -> Tensor:
        """Clip the gradients by their global norm, take one optimiser step, and forget them.

        Returns:
            The norm before it was clipped, a scalar.
        """
        self.scaler.unscale_(optimiser)
        norm: Tensor = nn.utils.clip_grad_norm_(network.parameters(), grad_clip)
        self.scaler.step(optimiser)
        self.scaler.update()
        optimiser.zero_grad(set_to_none=True)
        return norm
