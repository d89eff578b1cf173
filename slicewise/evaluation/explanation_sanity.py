"""Whether explanations depend on what was learnt: they must change when the weights are randomised.

After Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018: a map that stays the same shows edges of the
image, not what the network looks for.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from slicewise.inference.explain import ExplainMethod, explain
from slicewise.model.network import MultiTaskUNet

# Shares of the encoder's layers, deepest first, that are random at each step of the cascade.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Above, a map of a wholly random network still looks much like that of the trained one.
MAX_SIMILARITY = 0.5


def sanity_check(
    network: MultiTaskUNet, image: Tensor, method: ExplainMethod = "gradcam", seeds: Sequence[int] = (0, 1, 2)
) -> dict[str, Any]:
    """Compare the maps of a network with those of ever more random copies of it.

    Similarity is the absolute Spearman rank correlation over the head's pixels: 1 for the same map or its inverse, 0
    for one that has nothing to do with it.

    Args:
        network: In evaluation mode; left as it is.
        image: ``[N, C, H, W]``, the network's input: slices with tumour tell most.
        method: Of the explanation.
        seeds: Of the random weights; figures are means over them and the slices.

    Returns:
        ``cascade``: steps ``{"randomised", "similarity", "n_undefined"}`` from the head alone to the head and the
        whole encoder; ``changed``: whether the last similarity is below ``MAX_SIMILARITY``. A similarity is None
        where all maps of that step are empty, which is a change as well.
    """
    image = image.to(next(network.parameters()).device)
    head = (image != 0).any(dim=1).cpu().numpy()
    trained = _maps(network, image, method)
    found = {
        share: [_similarities(trained, _randomised(network, image, share, seed, method), head) for seed in seeds]
        for share in SHARES
    }
    cascade = [_step(share, np.concatenate(found[share])) for share in SHARES]
    last = cascade[-1]["similarity"]
    return {
        "method": method,
        "n_slices": len(image),
        "seeds": list(seeds),
        "cascade": cascade,
        "changed": bool(trained.any()) and (last is None or last < MAX_SIMILARITY),
    }


def _step(share: float, similarities: NDArray[np.float64]) -> dict[str, Any]:
    defined = similarities[~np.isnan(similarities)]
    return {
        "randomised": "head" if share == 0 else f"head and {100 * share:.0f} % of the encoder",
        "similarity": float(defined.mean()) if len(defined) else None,
        "n_undefined": len(similarities) - len(defined),
    }


def _maps(network: MultiTaskUNet, image: Tensor, method: ExplainMethod) -> NDArray[np.float32]:
    with torch.inference_mode():
        features = network.encoder(image)
    return explain(network, image, features, method)


def _randomised(
    network: MultiTaskUNet, image: Tensor, share: float, seed: int, method: ExplainMethod
) -> NDArray[np.float32]:
    """Maps of a copy whose head, and that share of the encoder from its end on, have fresh weights."""
    random = copy.deepcopy(network)
    layers = _in_order(random.encoder, image)
    fresh = [*_leaves(random.head), *layers[len(layers) - round(share * len(layers)) :]]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for layer in fresh:
            _refresh(layer)
    return _maps(random, image, method)


def _refresh(layer: nn.Module) -> None:
    """Draw a layer's weights anew; one that draws nothing is a scale of 1 and an offset of 0 when it is fresh."""
    if hasattr(layer, "reset_parameters"):
        cast("nn.Linear", layer).reset_parameters()
        return
    for name, weights in layer.named_parameters(recurse=False):
        weights.fill_(0.0 if name == "bias" else 1.0)


def _leaves(module: nn.Module) -> list[nn.Module]:
    """The layers that hold weights themselves."""
    return [part for part in module.modules() if any(True for _ in part.parameters(recurse=False))]


def _in_order(encoder: nn.Module, image: Tensor) -> list[nn.Module]:
    """An encoder's layers in the order in which they run."""
    ran: list[nn.Module] = []
    hooks = [leaf.register_forward_hook(lambda layer, *_: ran.append(layer)) for leaf in _leaves(encoder)]
    with torch.inference_mode():
        encoder(image[:1])
    for hook in hooks:
        hook.remove()
    return ran


def _similarities(
    one: NDArray[np.float32], other: NDArray[np.float32], head: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """``[N]`` absolute rank correlations in the head; NaN where a map is the same everywhere."""
    return np.array([_rank_correlation(a[h], b[h]) for a, b, h in zip(one, other, head, strict=True)])


def _rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    if one.size < 2 or not np.ptp(one) or not np.ptp(other):
        return np.nan
    return float(abs(np.corrcoef(rankdata(one), rankdata(other))[0, 1]))
