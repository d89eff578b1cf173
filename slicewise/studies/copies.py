"""Second copies of one tree in a source: both Kaggle archives hold their images twice."""

from __future__ import annotations

import filecmp
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".nii", ".gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})


def drop_copies(
    paths: Sequence[PurePosixPath], same: Callable[[PurePosixPath, PurePosixPath], bool]
) -> list[PurePosixPath]:
    """Leave out files that repeat one less deep in the tree, e.g. ``brain_tumor_dataset/yes/Y1.jpg``.

    Only a copy of the tree counts: below the folder that both share, the deeper path must end with the whole of
    the other (``a/yes/1.jpg`` repeats ``yes/1.jpg``; ``test/yes/1.jpg`` does not repeat ``train/yes/1.jpg``).

    Args:
        paths: Files relative to the source.
        same: Whether two of them have one content.

    Returns:
        The files that stay, in the order given.
    """
    alike: dict[tuple[str, str], list[PurePosixPath]] = defaultdict(list)
    for path in paths:
        if path.suffix.lower() in SUFFIXES:
            alike[path.parent.name, path.name].append(path)
    copies: dict[PurePosixPath, PurePosixPath] = {}
    for group in alike.values():
        kept: list[PurePosixPath] = []
        for path in sorted(group, key=lambda path: (len(path.parts), path)):
            first = next((other for other in kept if _repeats(path, other) and same(path, other)), None)
            if first is None:
                kept.append(path)
            else:
                copies[path] = first
    if copies:
        path, first = next(iter(copies.items()))
        logger.warning("%d files are left out as copies of others, e.g. %s of %s", len(copies), path, first)
    return [path for path in paths if path not in copies]


def same_content(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes; a file that cannot be read equals none."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _repeats(deep: PurePosixPath, shallow: PurePosixPath) -> bool:
    if len(deep.parts) <= len(shallow.parts):
        return False
    shared = 0
    while shared < len(shallow.parts) - 1 and deep.parts[shared] == shallow.parts[shared]:
        shared += 1
    rest = shallow.parts[shared:]
    return deep.parts[shared:][-len(rest) :] == rest
