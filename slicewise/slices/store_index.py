"""The slice store's index: ``store.json``, which holds everything but pixels.

The slices of a study are kept in columns, so that a store of 1,000 studies opens in a fraction of a second; one
``SliceEntry`` is made when somebody asks for it. Every field is documented in ``docs/slice-store.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from slicewise.config import SliceConfig
from slicewise.errors import StoreError
from slicewise.files import write_text
from slicewise.slices.quality import QualityRecord
from slicewise.slices.store_keys import KEY_PATTERN
from slicewise.slices.store_slices import SliceEntry, SliceTable, columns

INDEX = "store.json"
STUDIES = "studies"
IMAGE, LABEL, NATIVE = "image.npy", "label.npy", "native.zz"
VERSION = 3
CURE = "run 'slicewise preprocess' again"
# A hundred thousand studies have an index of half of this.
MAX_INDEX_BYTES = 1 << 30

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Millimetres = Annotated[float, Field(gt=0)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StudyEntry(_Record):
    """One study of the store, with its quality record.

    Attributes:
        key: Its folder's name.
        grade: The tumour's grade as the source gives it, such as ``HGG``.
        content_xxh3: XXH3-128 of ``image.npy``; equal for a study listed twice under two names.
        label_xxh3: XXH3-128 of ``label.npy``; None where there is no mask.
        native_xxh3: XXH3-128 of ``native.zz``, which holds the head and the labels in the study's own voxels.
        slices: A sequence of ``SliceEntry``, kept in columns.
    """

    key: Annotated[str, Field(pattern=KEY_PATTERN)]
    study_id: str
    patient_id: str | None
    source: str
    layout: str
    synthetic: bool
    grade: str | None = None
    modalities: tuple[str, ...]
    known_regions: tuple[str, ...]
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    spacing_known: bool
    quality: QualityRecord
    content_xxh3: Digest
    label_xxh3: Digest | None
    native_xxh3: Digest
    warnings: tuple[str, ...]
    slices: SliceTable

    @field_validator("slices", mode="before")
    @classmethod
    def _from_entries(cls, value: Any) -> Any:
        """Take a list or tuple of ``SliceEntry`` too."""
        entries = isinstance(value, list | tuple) and all(isinstance(row, SliceEntry) for row in value)
        return columns(value) if entries else value

    @property
    def has_labels(self) -> bool:
        """Whether a mask says where the tumour is."""
        return self.label_xxh3 is not None

    @property
    def has_tumour(self) -> bool:
        """Whether any slice shows tumour."""
        return any(self.slices.tumour)


class StudyFailure(_Record):
    """A study that was left out, and why."""

    study_id: str
    reason: str


class StoreIndex(_Record):
    """The content of ``store.json``.

    Attributes:
        preprocessing: What every slice went through.
        data_digest: Digest of the dataset that the store was made from.
        sources: Where the studies came from, sorted.
    """

    format: Literal["slicewise-store"] = "slicewise-store"
    version: Literal[3] = 3
    preprocessing: SliceConfig
    data_digest: str
    sources: tuple[str, ...]
    studies: tuple[StudyEntry, ...]
    failures: tuple[StudyFailure, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> StoreIndex:
        keys = [study.key for study in self.studies]
        if len(set(keys)) < len(keys):
            raise ValueError("two studies have one key")
        return self


def read_index(folder: Path) -> StoreIndex:
    """Read and validate the index of the store in ``folder``.

    Raises:
        StoreError: Missing, not a store, of another format version, or damaged.
    """
    path = folder / INDEX
    try:
        if not path.is_file():
            raise StoreError(f"{folder} is not a slice store: it has no {INDEX}", CURE)
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise StoreError(f"{path} has more than {MAX_INDEX_BYTES >> 20} MB: not an index", CURE)
        return StoreIndex.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", "check its permissions and the disk") from error
    except ValidationError as error:
        raise StoreError(f"{path} {_what_is_wrong(error)}", CURE) from error


def _what_is_wrong(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False)
    for fault in faults:
        if fault["loc"] == ("version",) and fault["type"] == "literal_error":
            return f"is of format version {fault['input']!s:.20}, this SliceWise reads version {VERSION}"
    where = ".".join(str(part) for part in faults[0]["loc"])[:100]
    return f"is damaged or of another version ({where or 'content'}: {faults[0]['msg']:.200})"


def write_index(folder: Path, index: StoreIndex) -> None:
    """Write ``store.json`` atomically, one line per study."""
    head = index.model_dump(mode="json", exclude={"studies"})
    lines = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()]
    studies = ",\n".join(study.model_dump_json() for study in index.studies)
    body = ",\n".join([*lines, f'"studies": [\n{studies}\n]'])
    write_text(folder / INDEX, f"{{\n{body}\n}}\n")


def files_of(folder: Path, index: StoreIndex) -> Iterator[Path]:
    """Every file that a store consists of."""
    yield folder / INDEX
    for study in index.studies:
        yield folder / STUDIES / study.key / IMAGE
        yield folder / STUDIES / study.key / NATIVE
        if study.has_labels:
            yield folder / STUDIES / study.key / LABEL
