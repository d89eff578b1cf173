"""A prediction of one slice as the fields of an answer. Encoding pictures is slow: call it beside the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.answers import MOST_NATS, class_fields, mask_fields, ood_fields
from serving.codecs.masks import MapFormat, encode_map
from serving.codecs.overlays import heat_overlay, regions_overlay
from serving.gateway.rest.parameters import GradcamParameters, SegmentParameters, UncertaintyParameters
from slicewise.config import REGIONS
from slicewise.inference.components3d import IN_PLANE, label_components
from slicewise.inference.predictor import Prediction

Plane = NDArray[Any]


def classified(prediction: Prediction) -> dict[str, Any]:
    """The fields of classification and of the out-of-distribution score."""
    fields = class_fields(prediction.tumor_probability, prediction.threshold, prediction.decision)
    scores = ood_fields(prediction.ood_score, prediction.ood_flag)
    return fields | scores | {"ood_parts": dict(prediction.ood_parts)}


def explained(prediction: Prediction, parameters: GradcamParameters, plane: Plane) -> dict[str, Any]:
    """With the heat map; ``plane`` is the slice ``[H, W]`` to lay it over."""
    heat = _there(prediction.gradcam)
    return classified(prediction) | {
        "explain_method": parameters.explain_method,
        "gradcam_base64": encode_map(heat, "png"),
        "gradcam_overlay": heat_overlay(plane, heat, 1.0, "gradcam"),
    }


def segmented(prediction: Prediction, parameters: SegmentParameters, plane: Plane | None) -> dict[str, Any]:
    """With the masks; ``plane`` is the slice ``[H, W]`` where an overlay is wanted."""
    mask = _there(prediction.mask)
    planes = dict(zip(REGIONS, mask, strict=True))
    form = parameters.mask_format
    masks = mask_fields(mask, parameters.pixel_mm, prediction.trained_regions, form)
    return (
        classified(prediction)
        | masks
        | {
            "mask_format": form,
            "components": {name: _components(one) for name, one in planes.items()},
            "probability_maps": _probabilities(prediction, parameters),
            "overlay": None if plane is None else regions_overlay(plane, mask),
        }
    )


def uncertain(prediction: Prediction, parameters: UncertaintyParameters, plane: Plane | None) -> dict[str, Any]:
    """With the uncertainty's maps and figures."""
    scores, form = prediction.uncertainty_scores, parameters.map_format
    head = scores.head if scores else None
    entropy = prediction.uncertainty
    over = None if plane is None or entropy is None else heat_overlay(plane, entropy, MOST_NATS, "uncertainty")
    told = {
        "mean": head.predictive_entropy if head else None,
        "epistemic": head.mutual_information if head else None,
        "aleatoric": head.expected_entropy if head else None,
        "tumor_probability_std": scores.tumour.std if scores else None,
        "sources": list(scores.sources) if scores else [],
        "map": _nats(entropy, form),
        "epistemic_map": _nats(prediction.epistemic, form),
        "aleatoric_map": _nats(prediction.aleatoric, form),
        "overlay": over,
    }
    sampling = {"n_mc_samples": parameters.n_mc_samples, "use_tta": parameters.use_tta}
    return segmented(prediction, parameters, plane) | sampling | {"uncertainty": told}


def _probabilities(prediction: Prediction, parameters: SegmentParameters) -> dict[str, str] | None:
    if not parameters.probability_map:
        return None
    maps = zip(REGIONS, _there(prediction.region_probability), strict=True)
    return {name: encode_map(one, parameters.map_format) for name, one in maps}


def _components(mask: NDArray[np.uint8]) -> dict[str, int | list[int]]:
    """Pieces connected by edges or corners."""
    labels, count = label_components(mask[np.newaxis] > 0, IN_PLANE)
    sizes: Sequence[int] = np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist()
    return {"count": count, "sizes_pixels": sorted(sizes, reverse=True)}


def _nats(values: NDArray[np.float32] | None, form: MapFormat) -> str | None:
    return None if values is None else encode_map(values, form, MOST_NATS)


def _there(array: NDArray[Any] | None) -> NDArray[Any]:
    if array is None:
        raise RuntimeError("the model server left out a map that was asked for")
    return array
