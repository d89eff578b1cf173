"""Pictures of an evaluation's folder, put into the page."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from slicewise.evaluation.shown_studies import Study

logger = logging.getLogger(__name__)
# The page is opened in a browser and sent by mail: all pictures stay about below this, a third more as text.
BUDGET_BYTES = 21_000_000
MOST_BYTES = 150_000
QUALITIES = (60, 30)
LEAST_SCALE = 0.6
TYPES = {"WEBP": "webp", "JPEG": "jpeg", "PNG": "png"}
TWINS = Path("pictures") / "duplicates"
THREADS = 4
DAMAGED = (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError)
SHOWN_MEMBERS = 6


@dataclass(frozen=True)
class Picture:
    """One slice of a study.

    Attributes:
        source: A data address.
        width: In pixels.
        height: In pixels.
        caption: Below it.
        z: Number of the slice; None where it is not told.
    """

    source: str
    width: int
    height: int
    caption: str
    z: int | None = None


def embed_pictures(studies: Sequence[Study], folder: Path) -> dict[str, list[Picture]]:
    """The pictures of every study, by its anchor. A picture that is missing or damaged is left out with a warning.

    Args:
        studies: Those with ``pictures`` in their record.
        folder: What the files' names are relative to.
    """
    wanted = [(study, row) for study in studies for row in study.record.get("pictures") or []]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda pair: _read(folder, str(pair[1]["file"])), wanted))
        limit = _limit([len(content) for content in found if content is not None])
        rows = zip((row for _, row in wanted), found, strict=True)
        made = pool.map(lambda pair: _embed(pair[0], pair[1], limit), rows)
        pictures: dict[str, list[Picture]] = {}
        for (study, _), picture in zip(wanted, made, strict=True):
            if picture is not None:
                pictures.setdefault(study.pictures, []).append(picture)
    return pictures


def _limit(sizes: Sequence[int]) -> int:
    """What one picture may take: all of them stay as they are where there is room for them."""
    if sum(sizes) <= BUDGET_BYTES:
        return MOST_BYTES
    return max(1, min(MOST_BYTES, BUDGET_BYTES // len(sizes)))


def _embed(row: Mapping[str, Any], content: bytes | None, limit: int) -> Picture | None:
    opened = None if content is None else _open(content, str(row["file"]))
    if content is None or opened is None:
        return None
    kind, (width, height) = TYPES.get(opened.format or "", ""), opened.size
    if not kind or len(content) > limit:
        smaller = _smaller(opened, len(content), limit, str(row["file"]))
        if smaller is None:
            return None
        content, kind = smaller, "webp"
    caption = str(row.get("caption") or f"slice {row.get('z')}")
    return Picture(_address(content, kind), width, height, caption, row.get("z"))


def _read(folder: Path, name: str) -> bytes | None:
    path = (folder / name).resolve()
    # metrics.json may come from elsewhere: it may not name files outside its folder.
    if not path.is_relative_to(folder.resolve()):
        logger.warning("picture %s lies outside %s and is left out", name, folder)
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        logger.warning("picture %s is left out: %s", path, error.strerror)
        return None


def _open(content: bytes, name: str) -> Image.Image | None:
    """The picture's head; its pixels are not decoded, the browser does that."""
    try:
        return Image.open(io.BytesIO(content))
    except DAMAGED as error:
        _warn_damaged(name, error)
        return None


def _smaller(picture: Image.Image, size: int, limit: int, name: str) -> bytes | None:
    """As WebP with fewer pixels and less quality, so that it about keeps to the limit; None where it is damaged."""
    scale = max(LEAST_SCALE, min(1.0, (limit / size) ** 0.5))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    try:
        colours = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except DAMAGED as error:
        _warn_damaged(name, error)
        return None
    content = b""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        colours.save(buffer, "WEBP", quality=quality, method=1)
        content = buffer.getvalue()
        if len(content) <= limit:
            break
    return content


def _warn_damaged(name: str, error: Exception) -> None:
    logger.warning("picture %s is left out: it is damaged (%s)", name, type(error).__name__)


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def duplicate_groups(data: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The duplicate groups, at most six members each, with a thumbnail where there is one."""
    groups = []
    for group in (data.get("audit") or {}).get("groups") or []:
        members = [
            {**member, "source": _thumbnail(folder, member["study"])} for member in group["members"][:SHOWN_MEMBERS]
        ]
        groups.append({**group, "shown": members, "more": len(group["members"]) - len(members)})
    return groups


def _thumbnail(folder: Path, study: str) -> str | None:
    name = (TWINS / f"{study}.png").as_posix()
    content = _read(folder, name) if (folder / name).is_file() else None
    return None if content is None or _open(content, name) is None else _address(content, "png")
