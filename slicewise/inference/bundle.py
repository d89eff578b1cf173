"""The model bundle: what training hands to serving.

A folder with ``model.safetensors``, ``bundle.json`` and a model card. Data, not code: nothing in it is ever
executed or unpickled, and the digest of every file is verified before anything is loaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slicewise import RESEARCH_USE, __version__
from slicewise.config import REGIONS, ModelConfig, SliceConfig
from slicewise.errors import BundleError
from slicewise.files import atomic_folder, sha256_file, write_json
from slicewise.inference.calibration import Calibration
from slicewise.inference.ood import NOT_FITTED, OOD_FILE, OodRecord, OodScorer
from slicewise.inference.ood_model import load_model
from slicewise.inference.postprocess import PostProcess
from slicewise.inference.slice_statistics import pooled_width
from slicewise.model.network import MultiTaskUNet, build_network

WEIGHTS = "model.safetensors"
CARD = "model_card.md"
META = "bundle.json"
VERSION: Literal[2] = 2
CURE = "package the model again with 'slicewise package', or copy the whole bundle folder again"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileDigest(_Part):
    """Size and SHA-256 of one file of the bundle."""

    bytes: int
    sha256: str


class BundleMeta(_Part):
    """The content of ``bundle.json``.

    Attributes:
        regions: The segmentation's channels, in order.
        trained_regions: Those that some training mask told. The others' outputs are noise: the Predictor
            gives an empty map for them.
    """

    format: Literal["slicewise-bundle"] = "slicewise-bundle"
    version: Literal[2] = VERSION
    research_use: str = RESEARCH_USE
    created: str = ""
    slicewise_version: str = __version__
    name: str = "slicewise"
    model_version: str = "1"
    architecture: ModelConfig
    preprocessing: SliceConfig
    regions: tuple[str, ...] = REGIONS
    trained_regions: tuple[str, ...] = REGIONS
    calibration: Calibration = Calibration()
    postprocess: PostProcess = PostProcess()
    ood: OodRecord = NOT_FITTED
    metrics: dict[str, Any] = Field(default_factory=dict)
    synthetic: bool = False
    sources: tuple[str, ...] = ()
    data_digest: str = ""
    files: dict[str, FileDigest] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_regions(self) -> BundleMeta:
        if self.regions != REGIONS:
            raise ValueError(f"regions must be {', '.join(REGIONS)}")
        if not set(self.trained_regions) <= set(REGIONS):
            raise ValueError(f"trained_regions must be some of {', '.join(REGIONS)}")
        return self


class Bundle:
    """A verified bundle.

    Attributes:
        folder: Where it lies.
        meta: What ``bundle.json`` says.
        digest: SHA-256 of ``bundle.json``, which itself holds the digests of all other files.
    """

    def __init__(self, folder: Path, meta: BundleMeta) -> None:
        self.folder = folder
        self.meta = meta
        self.digest = sha256_file(folder / META)

    def network(self) -> MultiTaskUNet:
        """The network with its weights, in evaluation mode, on the CPU.

        Raises:
            BundleError: The weights do not fit the architecture.
        """
        network = build_network(len(self.meta.preprocessing.modalities), self.meta.architecture)
        try:
            network.load_state_dict(load_file(self.folder / WEIGHTS))
        except (RuntimeError, SafetensorError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise BundleError(f"{self.folder / WEIGHTS} does not fit bundle.json: {reason}", CURE) from error
        return network.eval()

    def ood(self, network: MultiTaskUNet) -> OodScorer | None:
        """The out-of-distribution score for ``network``'s features; None where the bundle has none.

        Raises:
            BundleError: Its file is damaged, or of another network.
        """
        if self.meta.ood.threshold is None:
            return None
        channels, width = len(self.meta.preprocessing.modalities), pooled_width(network.encoder.widths)
        return OodScorer(load_model(self.folder / OOD_FILE, channels, width), self.meta.ood.threshold)


def write_bundle(
    out: Path,
    weights: dict[str, torch.Tensor],
    meta: BundleMeta,
    texts: dict[str, str] | None = None,
    copies: Sequence[Path] = (),
) -> Bundle:
    """Write a bundle folder, atomically.

    Args:
        out: The folder to make; an older bundle there is replaced.
        weights: The network's state.
        meta: All of ``bundle.json`` but ``created`` and ``files``.
        texts: Further text files by name, for instance the model card.
        copies: Files to take in as they are, for instance ``ood.safetensors``.

    Raises:
        BundleError: ``meta`` speaks of a file that was not given.
    """
    with atomic_folder(out) as folder:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
        for name, text in (texts or {}).items():
            (folder / name).write_text(text, encoding="utf-8")
        for path in copies:
            shutil.copyfile(path, folder / path.name)
        digests = {
            path.name: FileDigest(bytes=path.stat().st_size, sha256=sha256_file(path))
            for path in sorted(folder.iterdir())
        }
        created = datetime.now(UTC).isoformat(timespec="seconds")
        complete = meta.model_copy(update={"files": digests, "created": created})
        write_json(folder / META, complete.model_dump(mode="json"))
    return load_bundle(out)


def find_bundle(given: Path) -> Path:
    """The bundle in a run's folder, else what was given."""
    inside = given / "bundle"
    return inside if (inside / META).is_file() else given


def load_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: Missing, not a bundle, of an older or newer format, a file absent, or a digest that does not
            match.
    """
    try:
        content = json.loads((folder / META).read_text(encoding="utf-8"))
        _require_current(folder, content)
        meta = BundleMeta.model_validate(content)
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: cannot read {META} ({error.strerror})", CURE) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder / META} is not JSON", CURE) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "content"
        raise BundleError(f"{folder / META}: {key}: {first['msg']}", CURE) from error
    for name in (WEIGHTS, *((OOD_FILE,) if meta.ood.threshold is not None else ())):
        if name not in meta.files:
            raise BundleError(f"{folder / META} lists no {name}", CURE)
    for name, expected in meta.files.items():
        _verify(folder, name, expected)
    return Bundle(folder, meta)


def _require_current(folder: Path, content: Any) -> None:
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version < VERSION:
        raise BundleError(
            f"{folder} is a bundle of version {version}, and this release reads version {VERSION}",
            "run 'slicewise calibrate', 'evaluate' and 'package' again: the trained weights can stay",
        )


def _verify(folder: Path, name: str, expected: FileDigest) -> None:
    path = folder / name
    if Path(name).name != name:
        raise BundleError(f"{folder / META} lists {name!r}, which lies outside the bundle", CURE)
    if not path.is_file():
        raise BundleError(f"{path} is missing", CURE)
    if path.stat().st_size != expected.bytes or sha256_file(path) != expected.sha256:
        raise BundleError(f"{path} was changed: its SHA-256 is not the one in {META}", CURE)
