"""From the words of ``--source`` to sources."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from slicewise.config import DownloadConfig
from slicewise.errors import SourceError
from slicewise.studies.sources.archive import ArchiveSource
from slicewise.studies.sources.archives import SUFFIXES
from slicewise.studies.sources.base import Source
from slicewise.studies.sources.folder import FolderSource
from slicewise.studies.sources.kaggle import KAGGLE, KaggleSource
from slicewise.studies.sources.msd import MSD, MsdSource
from slicewise.studies.sources.phantom import PHANTOM, PhantomSource
from slicewise.studies.sources.s3 import SCHEME, S3Source

SUPPORTED = (
    "give a folder of studies, an archive (.zip, .tar, .tar.gz, .tar.bz2, .tar.xz), s3://bucket/prefix, msd, "
    "kaggle, kaggle:owner/name or phantom"
)
WORDS = (PHANTOM, MSD, KAGGLE)


def parse_sources(given: Sequence[str], config: DownloadConfig) -> list[Source]:
    """One source per word; ``kaggle`` alone stands for the sets of ``download.kaggle_datasets``.

    Raises:
        SourceError: None was given, or one is of no known kind; lists the kinds.
    """
    words = [word for one in given for word in _expanded(one, config)]
    if not words:
        raise SourceError("no source was given", SUPPORTED)
    return [_make(word, name, config) for word, name in zip(words, _names(words), strict=True)]


def _expanded(word: str, config: DownloadConfig) -> list[str]:
    word = word.strip()
    if word.lower() == KAGGLE:
        return [f"{KAGGLE}:{name}" for name in config.kaggle_datasets]
    return [word.lower() if word.lower() in WORDS else word]


def _make(word: str, name: str, config: DownloadConfig) -> Source:
    if word == PHANTOM:
        return PhantomSource(word, name)
    if word == MSD:
        return MsdSource(word, name, config)
    if word.startswith(f"{KAGGLE}:"):
        return KaggleSource(word, name)
    if word.startswith(SCHEME):
        return S3Source(word, name)
    if match := re.match(r"^([A-Za-z][\w+.-]*)://", word):
        # The word itself may hold a password.
        raise SourceError(f"source of the unknown kind {match[1]}://", f"download it yourself, or {SUPPORTED}")
    path = Path(word).expanduser()
    if word and path.is_dir():
        return FolderSource(word, name)
    if path.is_file():
        return ArchiveSource(word, name)
    raise SourceError(f"source {word!r} is not there{_near(word)}", SUPPORTED)


def _near(word: str) -> str:
    close = difflib.get_close_matches(word.lower(), WORDS, n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else " (as a folder or a file)"


def _names(words: Sequence[str]) -> list[str]:
    """Short, distinct, lower-case names."""
    names: list[str] = []
    for word in words:
        base = re.sub(r"[^\w.+-]+", "_", _short(word).lower()).strip("._") or "source"
        taken = [base, *(f"{base}-{number}" for number in range(2, len(words) + 2))]
        names.append(next(name for name in taken if name not in names))
    return names


def _short(word: str) -> str:
    if word in WORDS:
        return word
    if word.startswith((SCHEME, f"{KAGGLE}:")):
        return _stem(word.rstrip("/").rpartition("/")[2].removeprefix(f"{KAGGLE}:"))
    path = Path(word).expanduser().resolve()
    return path.name if path.is_dir() else _stem(path.name)


def _stem(name: str) -> str:
    ending = max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(ending)]
