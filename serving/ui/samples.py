"""Sample scans for the page: phantoms, made when first asked for and kept in memory only."""

from __future__ import annotations

import io
import threading
import zipfile
from functools import lru_cache
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from serving.status import NotFoundError
from serving.ui.pictures import grey_png
from slicewise.config import PhantomConfig
from slicewise.studies.orientation import to_display
from slicewise.studies.phantom import DESCRIPTION, PhantomStudy, is_healthy, make_phantom

# Fine enough to look at, coarse enough to be made in two seconds.
CONFIG = PhantomConfig(n_studies=3, shape=(128, 128, 48), spacing_mm=(1.5, 1.5, 3.0))
SEED = 8
PIXEL_MM = f"{CONFIG.spacing_mm[1]:g},{CONFIG.spacing_mm[0]:g}"
INDICES = range(CONFIG.n_studies)
SHOWN = "flair"
_making = threading.Lock()


def listing() -> list[dict[str, str]]:
    """What there is: per phantom a title, its files, and the settings that go with the slice."""
    return [
        {
            "title": f"Phantom {index + 1}",
            "shows": "no tumour" if is_healthy(index, CONFIG.healthy_share, SEED) else "tumour",
            "slice": f"phantom-{index + 1}.npz",
            "mask": f"phantom-{index + 1}-mask.npy",
            "picture": f"phantom-{index + 1}.png",
            "study": f"phantom-{index + 1}.zip",
            "pixel_mm": PIXEL_MM,
        }
        for index in INDICES
    ]


@lru_cache(maxsize=16)
def content(name: str) -> bytes:
    """A sample's file.

    Raises:
        NotFoundError: There is no such sample.
    """
    for index, files in enumerate(listing()):
        kind = next((kind for kind in ("slice", "mask", "picture", "study") if files[kind] == name), None)
        if kind is not None:
            with _making:  # one at a time: it takes a processor
                return _make(kind, _phantom(index))
    raise NotFoundError("there is no such sample", "ask /ui/api/samples for their names")


@lru_cache(maxsize=len(INDICES))
def _phantom(index: int) -> PhantomStudy:
    return make_phantom(index, CONFIG, SEED)


def _make(kind: str, phantom: PhantomStudy) -> bytes:
    if kind == "study":
        return _zip(phantom)
    labels = to_display(phantom.label, phantom.affine)
    areas = (labels > 0).sum(axis=(1, 2))
    shown = int(areas.argmax()) if areas.any() else len(areas) // 2
    planes = {name: to_display(image, phantom.affine)[shown] for name, image in phantom.images.items()}
    if kind == "picture":
        return grey_png(planes[SHOWN][np.newaxis])
    buffer = io.BytesIO()
    if kind == "mask":
        np.save(buffer, np.ascontiguousarray(labels[shown]))
    else:
        contiguous: dict[str, Any] = {name: np.ascontiguousarray(plane) for name, plane in planes.items()}
        np.savez(buffer, **contiguous)
    return buffer.getvalue()


def _zip(phantom: PhantomStudy) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, image in phantom.images.items():
            archive.writestr(f"{phantom.study_id}/{phantom.study_id}_{name}.nii", _nifti(image, phantom.affine))
    return buffer.getvalue()


def _nifti(voxels: NDArray[np.int16], affine: NDArray[np.float64]) -> bytes:
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = DESCRIPTION.encode()
    return bytes(image.to_bytes())
