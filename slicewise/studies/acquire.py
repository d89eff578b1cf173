"""From sources to a dataset folder: the files that studies use, and a manifest with a digest of each."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from slicewise.config import DownloadConfig
from slicewise.errors import SourceError
from slicewise.studies.dataset import (
    MANIFEST_NAME,
    Dataset,
    Progress,
    load_dataset,
)
from slicewise.studies.sources.assembly import Assembly
from slicewise.studies.sources.base import Context, Source
from slicewise.studies.sources.parse import parse_sources
from slicewise.studies.sources.remembered import RememberedSource, read_remembered
from slicewise.studies.sources.space import disk_error, require_space
from slicewise.studies.sources.workplace import locked, stage_of, workplace

__all__ = ["Dataset", "acquire", "load_dataset"]

logger = logging.getLogger(__name__)


def acquire(
    sources: Sequence[str],
    out: Path,
    config: DownloadConfig,
    seed: int,
    progress: Progress | None = None,
) -> Dataset:
    """Gather sources into a dataset folder; all of it appears at once, or nothing does.

    Work in progress lies in ``<out>.partial`` (what was fetched in ``config.cache``, if given), is found there by
    the next call, and is removed after success. A dataset that was made of the same sources in the same state is
    left as it is. Files are hard links where the file system allows it, else copies, never symbolic links.

    Args:
        sources: Words as ``--source`` takes them; see ``slicewise.studies.sources.parse``.
        out: The dataset folder; an earlier dataset there is replaced, anything else is left alone.
        config: How to fetch, and how many studies to take of each source.
        seed: For the phantoms.
        progress: Called with (what, done, total).

    Raises:
        SourceError: A source is missing, empty, of no known layout, cannot be fetched, or does not fit on the
            disk; names it.
        RunLockedError: Another download to ``out`` is running.
    """
    parsed = parse_sources(sources, config)
    for source in parsed:
        source.require_usable(out)
    _require_replaceable(out, config)
    try:
        data = _make(parsed, out, config, seed, progress)
    except OSError as error:
        raise disk_error(error, f"making {out}") from error
    logger.info("%s holds %d studies of %d sources", out, len(data.records), len(data.sources))
    return data


def _make(
    parsed: Sequence[Source], out: Path, config: DownloadConfig, seed: int, progress: Progress | None
) -> Dataset:
    place = out.resolve()
    with workplace(place) as work, _stages(parsed, work, config) as stages:
        job = Assembly(place, work, config, read_remembered(place), progress)
        contexts = [
            Context(config, seed, stage, place, job.remembered.earlier(place, source.given), progress)
            for source, stage in zip(parsed, stages, strict=True)
        ]
        plans = [source.plan(context) for source, context in zip(parsed, contexts, strict=True)]
        marks = tuple(
            RememberedSource(given=source.given, name=source.name, fingerprint=plan.fingerprint)
            for source, plan in zip(parsed, plans, strict=True)
        )
        if current := job.current(out, marks):
            logger.info("%s is up to date with its sources", out)
            return current
        needed = sum(plan.needed_bytes for plan in plans)
        require_space(stages[0].parent, needed, config.keep_free_gb, f"download to {out}")
        gathered = [source.gather(context) for source, context in zip(parsed, contexts, strict=True)]
        job.publish(parsed, gathered, marks)
    return load_dataset(out)


def _require_replaceable(out: Path, config: DownloadConfig) -> None:
    """Only an empty folder or a dataset is replaced: a wrong word must not delete a home."""
    if config.cache and out.resolve() in (Path(config.cache).expanduser() / "in").resolve().parents:
        raise SourceError(f"download.cache={config.cache} lies in the output {out}", "choose another place for it")
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST_NAME).is_file()):
        raise SourceError(f"{out} exists and is not a dataset", "choose another --out, or remove it")


@contextlib.contextmanager
def _stages(sources: Sequence[Source], work: Path, config: DownloadConfig) -> Iterator[list[Path]]:
    """A folder per source for what is fetched: in the cache, locked, or else in the workplace."""
    root = Path(config.cache).expanduser().resolve() if config.cache else work
    stages = [stage_of(root, source.given, source.name) for source in sources]
    with contextlib.ExitStack() as stack:
        if config.cache:
            for stage in stages:
                stack.enter_context(locked(stage, f"another download uses {stage}"))
        for stage in stages:
            stage.mkdir(parents=True, exist_ok=True)
        yield stages
