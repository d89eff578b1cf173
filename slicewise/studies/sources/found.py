"""Which studies lie in what a source has brought, told in the user's words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from slicewise.errors import SourceError
from slicewise.studies import layouts
from slicewise.studies.dataset import study_files
from slicewise.studies.phantom import is_phantom_file
from slicewise.studies.sources.choose import evenly
from slicewise.studies.study import StudyRecord


def find_studies(folder: Path, given: str, name: str, limit: int | None) -> tuple[StudyRecord, ...]:
    """The studies of a folder, at most ``limit`` of them; phantoms are told by their headers and marked.

    Args:
        folder: Where the files are.
        given: What the user calls the source, for messages.
        name: The source's short name.
        limit: See ``download.max_studies``.

    Raises:
        SourceError: No study of a known layout, or two of one id.
    """
    try:
        chosen = evenly(layouts.discover(folder, name), limit)
    except SourceError as error:
        raise SourceError(error.message.replace(str(folder), given), error.cure) from error
    return tuple(_marked(record, folder) for record in chosen)


def _marked(record: StudyRecord, folder: Path) -> StudyRecord:
    first = next(iter(record.images.values()))[0]
    synthetic = first.endswith((".nii", ".nii.gz")) and is_phantom_file(folder / first)
    return record.model_copy(update={"synthetic": True}) if synthetic else record


def wanted_paths(paths: Sequence[PurePosixPath], name: str, limit: int | None) -> set[str] | None:
    """The files of the studies to take and the tables that tell of them, where names decide; None: fetch all.

    Raises:
        SourceError: Two studies of one id, or two files for one modality.
    """
    if limit is None:
        return None
    chosen = evenly(layouts.discover_by_name(paths, name), limit)
    files = {path for record in chosen for path in study_files(record)}
    return files | {str(path) for path in layouts.side_tables(paths)} if files else None
