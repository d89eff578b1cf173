"""How label files number the tumour's parts, and their way into BraTS's 0, 1, 2, 4."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slicewise.errors import StudyError
from slicewise.studies.nifti import NiftiVolume
from slicewise.studies.repair import distinct_values
from slicewise.studies.study import ALL_REGIONS, StudyRecord

NOTHING, CORE, OEDEMA, ENHANCING = 0, 1, 2, 4
TOLERANCE = 1e-4


@dataclass(frozen=True)
class LabelScheme:
    """A numbering.

    Attributes:
        values: The file's values → BraTS values; empty means that they are the same.
        regions: The regions that can be told apart with it.
    """

    values: dict[int, int] = field(default_factory=dict)
    regions: tuple[str, ...] = ALL_REGIONS

    def record_fields(self) -> dict[str, Any]:
        """The two fields of a study's record that hold it."""
        return {"label_map": self.values, "label_regions": self.regions}


BRATS = LabelScheme()
# BraTS 2023: 3 is enhancing tumour and nothing is 4.
BRATS_2023 = LabelScheme({1: CORE, 2: OEDEMA, 3: ENHANCING})
# BraTS 2024, glioma after treatment (de Verdier et al., 2024): 3 is enhancing tumour, 4 the resection cavity.
POST_TREATMENT = LabelScheme({1: CORE, 2: OEDEMA, 3: ENHANCING, 4: NOTHING})
# Medical Segmentation Decathlon, Task01 (Antonelli et al., 2022).
MSD = LabelScheme({1: OEDEMA, 2: CORE, 3: ENHANCING})
# Any value above 0 is tumour of an unknown kind; written as oedema, as the LGG masks are.
WHOLE_TUMOUR = LabelScheme(dict.fromkeys((1, 2, 3, 4, 255), OEDEMA), ("WT",))

SCHEMES = {
    "brats": BRATS,
    "brats2023": BRATS_2023,
    "brats2024": POST_TREATMENT,
    "msd": MSD,
    "whole": WHOLE_TUMOUR,
}


def renumber(label: NiftiVolume, record: StudyRecord) -> NiftiVolume:
    """Bring a label volume to BraTS values by the record's ``label_map``.

    Args:
        label: Values as in the file, ``[X, Y, Z]``.
        record: Names the numbering; an empty map leaves the volume as it is.

    Raises:
        StudyError: The file holds a value that its numbering does not know; names file and value.
    """
    if not record.label_map:
        return label
    known = {NOTHING: NOTHING, **record.label_map}
    values = distinct_values(label.data)
    rounded = np.rint(values)
    wrong = values[~((np.abs(values - rounded) <= TOLERANCE) & np.isin(rounded, list(known)))]
    if wrong.size:
        message = f"{label.path} holds the label value {wrong[0]:g}"
        raise StudyError(record.study_id, message, f"its numbering knows {', '.join(map(str, sorted(known)))}")
    table = np.zeros(max(known) + 1, dtype=np.uint8)
    for value, meaning in known.items():
        table[value] = meaning
    whole = label.data if label.data.dtype == np.uint8 else np.rint(label.data).astype(np.uint8)
    return dataclasses.replace(label, data=table[whole])
