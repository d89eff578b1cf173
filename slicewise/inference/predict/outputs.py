"""The files of one item: its mask, and a picture of what was predicted over the scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicewise.config import REGIONS
from slicewise.config.preprocess import Plane
from slicewise.evaluation.overlay_layers import COLOURS, rgb
from slicewise.evaluation.overlays import draw_study, save_picture
from slicewise.files import atomic_path
from slicewise.inference.predict.item_records import Figures, slice_figures, study_figures
from slicewise.inference.predict.slice_files import SliceFile
from slicewise.inference.predictor import Prediction, SliceInput
from slicewise.inference.study import StudyPrediction
from slicewise.inference.study_mask import write_study_mask
from slicewise.slices.planes import cut, cut_study
from slicewise.slices.regions import ENHANCING, NECROSIS, OEDEMA, labels_of
from slicewise.studies.made_grid import grid_of
from slicewise.studies.study import Study

MASKS, OVERLAYS = "masks", "overlays"
VOLUME_SUFFIX = ".nii.gz"
SHOWN_AS = {OEDEMA: "WT", NECROSIS: "TC", ENHANCING: "ET"}


@dataclass(frozen=True)
class Written:
    """What is told of an item that is done; the fields are those of ``ItemRecord``."""

    figures: Figures
    mask: str | None
    overlay: str | None
    warnings: tuple[str, ...] = ()


class ItemWriter:
    """Writes the files of items, each in one step.

    Args:
        out: The output folder.
        overlay: Whether to draw each item.
    """

    def __init__(self, out: Path, *, overlay: bool) -> None:
        self._out = out
        self._overlay = overlay

    def write_slice(self, name: str, file: SliceFile, prediction: Prediction) -> Written:
        """Write what belongs to a slice."""
        mask = overlay = None
        if prediction.mask is not None:
            mask = f"{MASKS}/{name}.png"
            write_slice_mask(prediction.mask, self._out / mask)
        if self._overlay:
            overlay = self._draw(name, draw_slice(file.slice, prediction, name))
        return Written(slice_figures(prediction, file.slice, file.spacing_known), mask, overlay)

    def write_study(self, name: str, study: Study, prediction: StudyPrediction, plane: Plane) -> Written:
        """Write what belongs to a study.

        Args:
            name: The item's.
            study: The study.
            prediction: Its prediction.
            plane: Along which the model sees it.
        """
        mask = overlay = None
        if prediction.mask is not None:
            mask = f"{MASKS}/{name}" if name.endswith(VOLUME_SUFFIX) else f"{MASKS}/{name}{VOLUME_SUFFIX}"
            write_study_mask(prediction, grid_of(study), self._out / mask)
        if self._overlay:
            overlay = self._draw(name, draw_widest(study, prediction, plane, name))
        return Written(study_figures(prediction), mask, overlay, study.warnings)

    def _draw(self, name: str, picture: Image.Image) -> str:
        overlay = f"{OVERLAYS}/{name}.png"
        save_picture(picture, self._out / overlay)
        return overlay


def write_slice_mask(mask: NDArray[np.uint8], path: Path) -> None:
    """Write a slice's regions ``[3, H, W]`` as a PNG of BraTS's label values, each shown in its region's colour."""
    picture = Image.fromarray(labels_of(mask.astype(np.bool_)), mode="P")
    palette = np.zeros((256, 3), dtype=np.uint8)
    for label, region in SHOWN_AS.items():
        palette[label] = rgb(COLOURS[region])
    picture.putpalette(palette.tobytes())
    with atomic_path(path) as temporary:
        picture.save(temporary, "PNG")


def draw_slice(item: SliceInput, prediction: Prediction, title: str) -> Image.Image:
    """Draw a slice with all that was predicted for it."""
    frame = item.image.shape[1:]
    mask = np.zeros((len(REGIONS), *frame)) if prediction.mask is None else prediction.mask
    return draw_study(
        item.image.astype(np.float32),
        item.modalities,
        mask.astype(np.bool_),
        evidence=prediction.gradcam,
        uncertainty=prediction.uncertainty,
        title=title,
    )


def draw_widest(study: Study, prediction: StudyPrediction, plane: Plane, title: str) -> Image.Image:
    """Draw the slice with the largest whole tumour; without one, the most suspicious slice.

    Args:
        study: The study.
        prediction: Its prediction.
        plane: Along which the model sees it, which is how its slices are counted.
        title: What is written above; the slice's number is added.
    """
    turned = cut_study(study, plane)
    index = _widest(prediction, plane)
    shown = {name: volume[index] for name, volume in zip(turned.modalities, turned.channels, strict=True)}
    planes = np.stack([np.asarray(picture, dtype=np.float32) for picture in shown.values()])
    mask = _plane(prediction.mask, plane, index, planes.shape[1:])
    maps = {
        "evidence": None if prediction.gradcam is None else cut(prediction.gradcam, plane)[index],
        "uncertainty": None if prediction.uncertainty is None else cut(prediction.uncertainty, plane)[index],
    }
    return draw_study(planes, tuple(shown), mask, title=f"{title}, slice {index}", **maps)


def _widest(prediction: StudyPrediction, plane: Plane) -> int:
    if prediction.mask is not None and prediction.mask[0].any():
        return int(cut(prediction.mask[0], plane).sum(axis=(1, 2), dtype=np.int64).argmax())
    return most_suspicious(prediction)


def most_suspicious(prediction: StudyPrediction) -> int:
    """The slice of the highest tumour probability; the first of them."""
    said = [(one.tumor_probability, -one.index) for one in prediction.slices if one.tumor_probability is not None]
    return -max(said)[1]


def _plane(mask: NDArray[Any] | None, plane: Plane, index: int, frame: tuple[int, ...]) -> NDArray[np.bool_]:
    if mask is None:
        return np.zeros((len(REGIONS), *frame), dtype=np.bool_)
    return np.stack([cut(region, plane)[index] for region in mask]).astype(np.bool_)
