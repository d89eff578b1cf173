"""Fetching in parts, against a server in memory that fails as told."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicewise.config import DownloadConfig
from slicewise.errors import SourceError
from slicewise.studies.sources.base import Context, Earlier, RemoteFile
from slicewise.studies.sources.partial import Ledger
from slicewise.studies.sources.remote import Remote
from slicewise.studies.sources.retry import ChangedError, TransientError
from slicewise.studies.sources.transfer import Transfer

CONFIG = DownloadConfig(retries=2, backoff_s=1e-6, part_mb=1e-4, workers=3)


class MemoryFile(Remote):
    """A file of bytes in memory.

    ``faults``: what happens to the next reads: the number of bytes after which the connection ends, or None.
    """

    def __init__(
        self, path: str, body: bytes, *, etag: str = "a", ranged: bool = True, faults: tuple[int | None, ...] = ()
    ) -> None:
        super().__init__(RemoteFile(path, len(body), etag), f"memory:{path}", ranged=ranged)
        self.body = body
        self.faults = list(faults)
        self.asked: list[tuple[int, int]] = []
        self.next: MemoryFile | None = None

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        self.asked.append((start, stop))
        if self.next is not None:
            raise ChangedError
        fault = self.faults.pop(0) if self.faults else None
        end = stop if fault is None else min(stop, start + fault)
        for at in range(start, end, 30):
            yield self.body[at : min(at + 30, end)]
        if fault is not None:
            raise TransientError("broken")

    def again(self) -> MemoryFile:
        return self.next or self


def context(stage: Path, **changes: object) -> Context:
    config = CONFIG.model_copy(update=changes)
    return Context(config, 0, stage, stage / "out")


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 99, 100, 101, 250, 1000]), min_size=1, max_size=4),
    faults=st.lists(st.none() | st.integers(1, 120), max_size=8),
    ranged=st.booleans(),
    etag=st.sampled_from(["", "x"]),
)
def test_what_arrives_is_what_was_there(sizes: list[int], faults: list[int | None], ranged: bool, etag: str) -> None:
    bodies = {f"d/{i}.bin": bytes((i * 7 + at) % 251 for at in range(size)) for i, size in enumerate(sizes)}
    patient = {"retries": len(faults)}
    with tempfile.TemporaryDirectory() as folder:
        remotes = [
            MemoryFile(path, body, etag=etag, ranged=ranged, faults=tuple(faults)) for path, body in bodies.items()
        ]
        transfer = Transfer(context(Path(folder), **patient), "test")
        assert transfer.run(remotes) == [remote.file for remote in remotes]
        found = {str(p.relative_to(transfer.folder)): p.read_bytes() for p in transfer.folder.rglob("*.bin")}
        assert found == bodies
        assert not list((Path(folder) / "parts").iterdir())
        again = [MemoryFile(path, body, etag=etag, ranged=ranged) for path, body in bodies.items()]
        Transfer(context(Path(folder)), "test").run(again)
        # Without an ETag nobody knows whether the file is still the same.
        assert all(bool(remote.asked) is (not etag and bool(remote.body)) for remote in again)


def test_failures_in_a_row_count_and_progress_resets_them(tmp_path: Path) -> None:
    slow = MemoryFile("slow", bytes(100), faults=(10,) * 9)
    assert Transfer(context(tmp_path / "a"), "test").run([slow])
    dead = MemoryFile("dead", bytes(100), faults=(0,) * 9)
    with pytest.raises(SourceError, match=r"fetching memory:dead failed after 3 tries: broken"):
        Transfer(context(tmp_path / "b"), "test").run([dead])
    assert len(dead.asked) == 3


def test_parts_of_another_content_are_not_used(tmp_path: Path) -> None:
    old = MemoryFile("f", b"o" * 250, etag="old", faults=(None, None, 0, 0, 0))
    with pytest.raises(SourceError, match="memory:f"):
        Transfer(context(tmp_path, workers=1), "test").run([old])
    same = MemoryFile("f", b"o" * 250, etag="old")
    assert Transfer(context(tmp_path), "test").missing_bytes([same]) == 50
    new = MemoryFile("f", b"n" * 250, etag="new")
    transfer = Transfer(context(tmp_path), "test")
    assert transfer.missing_bytes([new]) == 250
    transfer.run([new])
    assert (transfer.folder / "f").read_bytes() == b"n" * 250


def test_changing_for_ever_is_an_error(tmp_path: Path) -> None:
    restless = MemoryFile("f", b"x")
    restless.next = restless
    with pytest.raises(SourceError, match="memory:f changes while it is fetched, 3 times in a row"):
        Transfer(context(tmp_path), "test").run([restless])


def test_more_bytes_than_asked_for_are_refused(tmp_path: Path) -> None:
    class Chatty(MemoryFile):
        def read(self, start: int, stop: int) -> Iterator[bytes]:
            yield self.body[start:]

    with pytest.raises(SourceError, match="sent more than was asked for"):
        Transfer(context(tmp_path), "test").run([Chatty("f", bytes(250))])


def test_a_journal_torn_by_a_kill(tmp_path: Path) -> None:
    file = MemoryFile("f", bytes(range(250)), faults=(None, None, 0, 0, 0))
    with pytest.raises(SourceError):
        Transfer(context(tmp_path, workers=1), "test").run([file])
    (journal,) = (tmp_path / "parts").glob("*.jsonl")
    text = journal.read_text()
    journal.write_text(text[:-4])
    rest = MemoryFile("f", bytes(range(250)))
    transfer = Transfer(context(tmp_path), "test")
    transfer.run([rest])
    assert sorted(rest.asked) == [(100, 200), (200, 250)]
    assert (transfer.folder / "f").read_bytes() == rest.body


def test_the_ledger_sees_what_was_changed_afterwards(tmp_path: Path) -> None:
    file = RemoteFile("f", 3, "tag")
    (tmp_path / "f").write_bytes(b"abc")
    ledger = Ledger(tmp_path / "ledger.jsonl", tmp_path)
    ledger.add(file)
    for one in (ledger, Ledger(tmp_path / "ledger.jsonl", tmp_path)):
        assert one.holds(file)
        assert not one.holds(RemoteFile("f", 3, "other"))
        assert not one.holds(RemoteFile("g", 3, "tag"))
    (tmp_path / "f").write_bytes(b"abd")
    assert not ledger.holds(file)


def test_files_of_an_earlier_dataset_are_linked(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "f").write_bytes(b"abc")
    kept, changed = RemoteFile("f", 3, "tag"), RemoteFile("g", 3, "new")
    earlier = Earlier(tmp_path / "old", {"f": kept, "g": RemoteFile("g", 3, "old")})
    transfer = Transfer(Context(CONFIG, 0, tmp_path / "stage", tmp_path, earlier), "test")
    transfer.keep_earlier([kept, changed])
    assert (transfer.folder / "f").samefile(tmp_path / "old" / "f")
    assert transfer.missing_bytes([MemoryFile("f", b"abc", etag="tag"), MemoryFile("g", b"123", etag="new")]) == 3
