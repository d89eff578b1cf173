"""How many CPUs this process may really use, and what they can do."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CPU_INFO = Path("/proc/cpuinfo")
TRAINING_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
BF16_FLAGS = TRAINING_FLAGS | {"bf16"}  # the last is ARM's


def available_cpus(root: Path = CGROUP) -> int:
    """The CPUs of the affinity mask, or fewer where the container's quota is lower; at least 1.

    Args:
        root: Where the container's own control group is mounted.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def cpu_quota(root: Path = CGROUP) -> float | None:
    """The container's limit in CPUs, by cgroup v2 or else v1; None where there is none.

    Args:
        root: As for ``available_cpus``.
    """
    words = _read(root / "cpu.max").split()
    if len(words) != 2:
        words = [_read(root / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    try:
        quota, period = (float(word) for word in words)
    except ValueError:  # "max": no limit; or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None  # v1 writes -1 for no limit


def has_bf16(info: Path = CPU_INFO) -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; without that it is emulated, and slow."""
    flags = _entry(info, "flags") or _entry(info, "Features")
    return not BF16_FLAGS.isdisjoint(flags.split())


def trains_in_bf16(info: Path = CPU_INFO) -> bool:
    """Whether bfloat16 was measured to make training faster on such a CPU: with AMX, or AVX-512's dot products."""
    return not TRAINING_FLAGS.isdisjoint(_entry(info, "flags").split())


def cpu_model(info: Path = CPU_INFO) -> str:
    """What the CPU is called; empty where the system does not say."""
    return _entry(info, "model name")


def _entry(info: Path, wanted: str) -> str:
    for line in _read(info).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
