"""A file or folder predicted item by item: one that is bad fails alone, and what is done stays done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicewise.errors import InputError, SliceWiseError, SourceError, StoreError, StudyError, UsageError
from slicewise.files import sha256_json
from slicewise.inference.predict.item_records import Failure, ItemRecord
from slicewise.inference.predict.items import Item, find_items
from slicewise.inference.predict.journal import Journal, open_journal
from slicewise.inference.predict.model import PredictModel
from slicewise.inference.predict.outputs import ItemWriter, Written
from slicewise.inference.predict.slice_files import SliceFile, read_slice
from slicewise.inference.predict.tables import write_tables
from slicewise.inference.predictor import PredictOptions
from slicewise.inference.study import predict_study
from slicewise.studies.reading import read_study

# ``on_progress(items done, items in all, text)``
Progress = Callable[[int, int, str], None]
# So many slices are in memory at once, and go through the network together.
BATCH_SLICES, BATCH_PIXELS = 8, 4_000_000


@dataclass(frozen=True)
class PredictJob:
    """What to predict, and where to write it.

    Attributes:
        given: A file or folder.
        out: The output folder.
        options: For the model.
        modalities: Of files that do not tell.
        overlay: Whether to draw each item.
        resume: Whether to keep what an earlier run has finished.
    """

    given: Path
    out: Path
    options: PredictOptions = dataclasses.field(default_factory=PredictOptions)
    modalities: tuple[str, ...] | None = None
    overlay: bool = False
    resume: bool = True

    def asked(self) -> dict[str, Any]:
        """All that changes the answers or the files written."""
        given = {"modalities": self.modalities, "overlay": self.overlay}
        return dataclasses.asdict(self.options) | given


@dataclass(frozen=True)
class Summary:
    """How a run went.

    Attributes:
        records: One for each item, sorted by name.
        resumed: How many an earlier run had finished.
    """

    records: tuple[ItemRecord, ...]
    resumed: int

    @property
    def failed(self) -> tuple[ItemRecord, ...]:
        """The items that failed."""
        return tuple(record for record in self.records if record.status == "failed")


def predict_items(job: PredictJob, model: PredictModel, on_progress: Progress | None = None) -> Summary:
    """Predict all that ``job.given`` holds and write ``predictions.csv``, ``predictions.json`` and the masks.

    Raises:
        SourceError: There is nothing to predict.
        UsageError: The output lies in the input, or the model cannot do a task this way.
        StoreError: The output cannot be written.
        RunLockedError: Another process writes to the same folder.
        ServerError: The model's server is away; what is done is kept, and the next call goes on from there.
    """
    model.require_tasks(job.options.tasks)
    inside, outside = job.out.resolve(), job.given.resolve()
    if inside == outside or outside in inside.parents:
        raise UsageError(f"the output {job.out} lies in {job.given}", "choose another --out")
    items = find_items(job.given, job.modalities, model.settings.preprocessing.unknown_modality)
    with open_journal(job.out, resume=job.resume) as journal:
        run = _Run(job, model, journal, len(items), on_progress or _silent)
        try:
            for batch in run.pending(items):
                run.do(batch)
            summary = run.summary()
            write_tables(summary.records, job.asked(), job.out)
        except OSError as error:
            message = f"{job.out} cannot be written: {error.strerror}"
            raise StoreError(message, "make room there and run again: what is done is kept") from error
    return summary


def _silent(_: int, __: int, ___: str) -> None:
    """No progress is told."""


@dataclass(frozen=True)
class _Todo:
    """An item that is not done yet; slices are read already."""

    item: Item
    key: str
    file: SliceFile | None = None


class _Run:
    """One run over all items."""

    def __init__(
        self, job: PredictJob, model: PredictModel, journal: Journal, n_items: int, progress: Progress
    ) -> None:
        self._job = job
        self._model = model
        self._journal = journal
        self._n_items = n_items
        self._progress = progress
        self._writer = ItemWriter(job.out, overlay=job.overlay)
        self._same = {"model": model.facts.digest, "asked": job.asked()}
        self._records: list[ItemRecord] = []
        self._resumed = 0

    def summary(self) -> Summary:
        """All records so far."""
        return Summary(tuple(sorted(self._records, key=lambda record: record.item)), self._resumed)

    def pending(self, items: Sequence[Item]) -> Iterator[list[_Todo]]:
        """What is to be done: a study by itself, slices together."""
        batch: list[_Todo] = []
        for item in items:
            todo = self._prepare(item)
            if todo is None:
                continue
            if todo.file is None:
                yield [todo]
                continue
            batch.append(todo)
            pixels = sum(one.file.slice.image.size for one in batch if one.file)
            if len(batch) == BATCH_SLICES or pixels >= BATCH_PIXELS:
                yield batch
                batch = []
        if batch:
            yield batch

    def do(self, batch: Sequence[_Todo]) -> None:
        """Predict a batch and write down what came of it."""
        if batch[0].file is None:
            self._study(batch[0])
        else:
            self._slices(batch)

    def _prepare(self, item: Item) -> _Todo | None:
        """None where the item is done, or failed before the model saw it."""
        key = ""
        try:
            key = sha256_json({"item": item.name, "files": item.digest(), **self._same})
            earlier = self._journal.find(key)
            if earlier is not None and self._is_whole(earlier):
                self._resumed += 1
                self._keep(earlier)
                return None
            if item.kind == "study":
                return _Todo(item, key)
            known = self._model.settings.preprocessing.modalities
            return _Todo(item, key, read_slice(item.root / item.files[0], self._job.modalities, known))
        except (InputError, StudyError, SourceError, OSError) as error:
            self._fail(item, key, error)
            return None

    def _is_whole(self, record: ItemRecord) -> bool:
        return all((self._job.out / name).is_file() for name in (record.mask, record.overlay) if name)

    def _slices(self, batch: Sequence[_Todo]) -> None:
        files = [todo.file for todo in batch if todo.file is not None]
        outcomes = self._model.slices(for_study=False)([file.slice for file in files], self._job.options)
        for todo, file, outcome in zip(batch, files, outcomes, strict=True):
            if isinstance(outcome, InputError):
                self._fail(todo.item, todo.key, outcome)
            else:
                self._done(todo, self._writer.write_slice(todo.item.name, file, outcome))

    def _study(self, todo: _Todo) -> None:
        assert todo.item.record is not None
        predict = self._model.slices(for_study=True)
        try:
            study = read_study(todo.item.record, todo.item.root)
            prediction = predict_study(study, predict, self._model.settings, self._job.options, self._tell_slices)
        except (InputError, StudyError, SourceError, OSError) as error:
            self._fail(todo.item, todo.key, error)
            return
        plane = self._model.settings.preprocessing.plane
        self._done(todo, self._writer.write_study(todo.item.name, study, prediction, plane))

    def _tell_slices(self, done: int, total: int) -> None:
        self._progress(len(self._records), self._n_items, f"slice {done} of {total}")

    def _done(self, todo: _Todo, written: Written) -> None:
        item = todo.item
        record = ItemRecord(
            item=item.name, kind=item.kind, status="done", key=todo.key, model=self._model.facts, **vars(written)
        )
        self._journal.add(record)
        self._keep(record)

    def _fail(self, item: Item, key: str, error: SliceWiseError | OSError) -> None:
        """An item that failed is tried again by the next run."""
        if isinstance(error, OSError):
            error = InputError(
                f"{item.name} cannot be read: {error.strerror}", "check that it is there, and its permissions"
            )
        failure = Failure.of(error)
        record = ItemRecord(
            item=item.name, kind=item.kind, status="failed", key=key, error=failure, model=self._model.facts
        )
        self._journal.add(record)
        self._keep(record)

    def _keep(self, record: ItemRecord) -> None:
        self._records.append(record)
        self._progress(len(self._records), self._n_items, "")
