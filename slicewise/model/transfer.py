"""An encoder that starts from weights of a local file."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from slicewise.errors import ConfigError
from slicewise.model.blocks import PyramidEncoder

logger = logging.getLogger(__name__)
PREFIX = "encoder."
# The key of a file's metadata that names what it leaves out on purpose.
PARTIAL = "partial"
NAMED = 5


def load_encoder(encoder: PyramidEncoder, path: Path) -> None:
    """Fill an encoder from a safetensors file.

    Args:
        encoder: Changed in place; only if every tensor fits.
        path: A SliceWise weights file, of which the ``encoder.*`` tensors are taken, or a file of the encoder's
            tensors alone. Its metadata may hold ``partial``, a comma list of beginnings of names: tensors so named
            that the file lacks keep their random start. Weights of another task seldom know every part.

    Raises:
        ConfigError: The file is missing or damaged, or its tensors are not this encoder's; names them.
    """
    given, left_out = _read(path)
    own = encoder.state_dict()
    _check_channels(encoder, own, given, path)
    missing = own.keys() - given.keys()
    kept = {name for name in missing if name.startswith(left_out)}
    problems = [
        _listed("missing", missing - kept),
        _listed("unknown", given.keys() - own.keys()),
        _listed("of another shape", _misfits(own, given)),
    ]
    if any(problems):
        raise ConfigError(
            f"model.encoder_weights: {path} is of another encoder; {'; '.join(filter(None, problems))}",
            "give weights of the same model.architecture and model.preset",
        )
    # All of them: strict loading stays on for the names, and what the file leaves out is what it was.
    encoder.load_state_dict({**own, **given})
    logger.info("the encoder starts from %d tensors of %s, %d keep their random start", len(given), path, len(kept))


def _read(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The encoder's tensors, and how the names begin that may be missing."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"model.encoder_weights: {path} is missing or damaged", "give a safetensors file, or leave the key out"
        ) from error
    parts = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    words = (word.strip().removeprefix(PREFIX) for word in metadata.get(PARTIAL, "").split(","))
    # An empty word would begin every name.
    return parts or tensors, tuple(word for word in words if word)


def _misfits(own: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, str]:
    """The shapes, as words, of the tensors that both have but not alike."""
    return {
        f"{name} {list(given[name].shape)} for {list(own[name].shape)}": name
        for name in own.keys() & given.keys()
        if own[name].shape != given[name].shape
    }


def _check_channels(encoder: PyramidEncoder, own: dict[str, Tensor], given: dict[str, Tensor], path: Path) -> None:
    """Name the likeliest slip by itself: all fits but the number of input channels."""
    names = list(_misfits(own, given).values())
    here = encoder.in_channels
    others = {given[name].shape[1] for name in names if _differs_by_input(own[name], given[name], here)}
    if len(others) == 1 and all(_differs_by_input(own[name], given[name], here) for name in names):
        raise ConfigError(
            f"model.encoder_weights: {path} takes {others.pop()} input channel(s), this network {here} ({names[0]})",
            "give weights of an encoder with one channel per modality of preprocess.modalities",
        )


def _differs_by_input(own: Tensor, given: Tensor, in_channels: int) -> bool:
    """Whether two convolution weights ``[out, in, h, w]`` differ in the number of input channels alone."""
    if own.dim() != 4 or given.dim() != 4 or own.shape[1] != in_channels:
        return False
    return own.shape[:1] + own.shape[2:] == given.shape[:1] + given.shape[2:]


def _listed(what: str, names: Iterable[str]) -> str:
    """The first few names, or nothing."""
    ordered = sorted(names)
    if not ordered:
        return ""
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return f"{what}: {', '.join(ordered[:NAMED])}{more}"
