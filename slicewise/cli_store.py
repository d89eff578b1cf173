"""The verbs ``store info``, ``store verify`` and ``store export``."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from slicewise.cli_options import Json, Out, emit
from slicewise.progress import progress

if TYPE_CHECKING:
    from slicewise.slices.store import SliceStore

logger = logging.getLogger(__name__)
Folder = Annotated[Path, typer.Argument(metavar="STORE", help="The slice store, from 'preprocess'.")]
Study = Annotated[list[str] | None, typer.Option("--study", help="A study's id or key; repeatable. Default: all.")]


def register(app: typer.Typer) -> None:
    """Add the group ``store`` to the command line."""
    group = typer.Typer(help="Look at a slice store, check it, export it.", no_args_is_help=True)
    for verb in (info, verify, export):
        group.command(verb.__name__)(verb)
    app.add_typer(group, name="store")


def info(store: Folder, json: Json = False) -> None:
    """Tell what a store holds.

    Example: slicewise store info work/store
    """
    from slicewise.slices.store import SliceStore

    found = describe(SliceStore(store))
    if json:
        emit(found, as_json=True)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("what", "", show_edge=False)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), escape(_words(value)))
    Console().print(table)


def describe(store: SliceStore) -> dict[str, Any]:
    """What ``store info`` tells."""
    from slicewise.slices.store_index import files_of

    studies = store.studies.values()
    classes = Counter(value for study in studies for value in study.slices.tumour)
    return {
        "store": str(store.folder),
        "format": f"{store.index.format} {store.index.version}",
        "studies": len(studies),
        "studies_with_labels": sum(study.has_labels for study in studies),
        "studies_with_tumour": sum(study.has_tumour for study in studies),
        "slices": sum(len(study.slices) for study in studies),
        "slices_with_tumour": classes[True],
        "slices_without": classes[False],
        "slices_unknown": classes[None],
        "slices_selected": sum(sum(study.slices.selected) for study in studies),
        "sources": dict(Counter(study.source for study in studies)),
        "modalities": dict(Counter(name for study in studies for name in study.modalities)),
        "grades": dict(Counter(study.grade for study in studies if study.grade is not None)),
        "synthetic_studies": sum(study.synthetic for study in studies),
        "bytes": sum(path.stat().st_size for path in files_of(store.folder, store.index) if path.is_file()),
        "data_digest": store.index.data_digest,
        "preprocessing": store.index.preprocessing.model_dump(mode="json"),
        "failures": {failure.study_id: failure.reason for failure in store.index.failures},
        "warnings": {study.study_id: list(study.warnings) for study in studies if study.warnings},
    }


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_words(inner)}" for name, inner in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(str(inner) for inner in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def verify(store: Folder, json: Json = False) -> None:
    """Compare every file of a store with its index; exit 1 when one is missing or was changed.

    Leftovers of killed writers are reported, and are no fault: the next append sweeps them away.

    Example: slicewise store verify work/store
    """
    from slicewise.slices.store import SliceStore, find_faults
    from slicewise.slices.store_lock import leftovers

    opened = SliceStore(store)
    with progress("verify") as update:
        faults = [str(fault) for fault in find_faults(store, opened.index, update)]
    spare = [str(path) for path in leftovers(store, opened.index)]
    for path in spare:
        logger.warning("%s belongs to no study of the store", path)
    text = "\n".join([*faults, f"{store}: {len(opened.studies)} studies checked, {len(faults)} bad file(s)"])
    result = {"store": str(store), "studies": len(opened.studies), "faults": faults, "leftovers": spare}
    emit(result, as_json=json, text=text)
    if faults:
        raise typer.Exit(1)


def export(
    store: Folder,
    out: Out,
    format_: Annotated[Literal["npz"], typer.Option("--format", help="npz: one compressed file per study.")] = "npz",
    study: Study = None,
    json: Json = False,
) -> None:
    """Write a store's studies as files that other tools read.

    Example: slicewise store export work/store --format npz --out work/npz --study BraTS2021_01476
    """
    from slicewise.slices.store import SliceStore
    from slicewise.slices.store_export import export_npz

    with progress("export") as update:
        written = export_npz(SliceStore(store), out, study or [], update)
    result = {"out": str(out), "format": format_, "files": [str(path) for path in written]}
    emit(result, as_json=json, text=f"{out}: {len(written)} studies")
