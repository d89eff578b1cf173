"""Archives as sources, hostile ones above all."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicewise.config import DownloadConfig
from slicewise.config.download import ArchiveConfig
from slicewise.errors import SourceError
from slicewise.studies.acquire import acquire
from slicewise.studies.sources.archives import is_archive
from slicewise.studies.sources.names import NameBook, safe_path
from slicewise.studies.sources.unpack import Unpacking

Files = dict[str, bytes]
CONFIG = DownloadConfig(keep_free_gb=0)
SET: Files = {"set/yes/1.png": b"one", "set/yes/2.png": b"two", "set/no/1.png": b"three"}


def make_tar(path: Path, files: Files, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_zip(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


MAKERS: dict[str, Callable[[Path, Files], Path]] = {
    "set.zip": make_zip,
    "set.tar": make_tar,
    "set.tar.gz": lambda path, files: make_tar(path, files, "w:gz"),
    "set.tgz": lambda path, files: make_tar(path, files, "w:gz"),
    "set.tar.bz2": lambda path, files: make_tar(path, files, "w:bz2"),
    "set.tar.xz": lambda path, files: make_tar(path, files, "w:xz"),
    "set.data": make_zip,
}


def unpack(archive: Path, target: Path, limits: ArchiveConfig | None = None) -> Files:
    config = CONFIG.model_copy(update={"archive": limits or ArchiveConfig()})
    Unpacking(archive, target, "1", config).run()
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file() and path.name != ".unpacked.json"
    }


@pytest.mark.parametrize("name", MAKERS)
def test_every_kind_by_content(tmp_path: Path, name: str) -> None:
    archive = MAKERS[name](tmp_path / name, SET)
    made = acquire([str(archive)], tmp_path / "out", CONFIG, 0)
    assert made.sources[0].name == ("set.data" if name == "set.data" else "set")
    found = {
        p.name + "/" + q.name: q.read_bytes()
        for p in (made.root / made.sources[0].name / "set").iterdir()
        for q in p.iterdir()
    }
    assert found == {path.removeprefix("set/"): content for path, content in SET.items()}
    assert archive.is_file()
    assert not (tmp_path / "out.partial").exists()
    before = (made.root / "manifest.json").stat().st_ino
    assert acquire([str(archive)], tmp_path / "out", CONFIG, 0) == made
    assert (made.root / "manifest.json").stat().st_ino == before


def test_what_is_no_archive(tmp_path: Path) -> None:
    volume = np.zeros(400, np.int16).tobytes()
    for name, content in {
        "a.nii.gz": gzip.compress(volume),
        "b.txt": b"text",
        "c.zip": b"not a zip at all",
        "d": b"",
        "e.bz2": bz2.compress(b"x" * 600),
        "f.xz": lzma.compress(b"y" * 600),
        "g.gz": gzip.compress(b"z")[:-4],
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert not is_archive(path)
        with pytest.raises(SourceError, match="no archive that can be read"):
            acquire([str(path)], tmp_path / "out", CONFIG, 0)


def test_gz_inside_stays_as_it_is(tmp_path: Path) -> None:
    packed = gzip.compress(b"voxels")
    files = {"P_1/P_1_flair.nii.gz": packed, "__MACOSX/P_1/._x": b"", "P_1/.DS_Store": b""}
    assert unpack(make_zip(tmp_path / "a.zip", files), tmp_path / "out") == {"P_1/P_1_flair.nii.gz": packed}


HOSTILE = ("../up", "a/../../up", "/abs", "C:/win", "a\\..\\b", "a//b", "a/./b", "new\nline", "x" * 300, "a/\x1b[31m")


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_hostile_names_are_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    make = make_zip if kind == "zip" else make_tar
    archive = make(tmp_path / "bad.archive", {"yes/1.png": b"1", name: b"2"})
    with pytest.raises(SourceError) as caught:
        acquire([str(archive)], tmp_path / "deep" / "er" / "out", CONFIG, 0)
    assert "bad.archive" in caught.value.message
    assert repr(name) in caught.value.message
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["bad.archive"]


@pytest.mark.parametrize(
    "pair", [("a", "a"), ("yes/A.png", "YES/a.png"), ("a", "a/b"), ("a/b", "a"), ("é", "e\u0301")]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_collide_are_refused(tmp_path: Path, pair: tuple[str, str], kind: str) -> None:
    archive = tmp_path / "bad"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name in pair:
                packed.writestr(name, name)
    else:
        with tarfile.open(archive, "w") as tar:
            for name in pair:
                tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(SourceError, match="cannot lie in one folder"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE]
)
def test_tar_members_that_are_no_files(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as packed:
        packed.addfile(tarfile.TarInfo("first"))
        info = tarfile.TarInfo("odd")
        info.type, info.linkname = kind, "/etc/passwd"
        packed.addfile(info)
    if kind == tarfile.CONTTYPE:
        assert unpack(archive, tmp_path / "out") == {"first": b"", "odd": b""}
        return
    with pytest.raises(SourceError, match=r"bad\.tar: the member 'odd' is a link, a device"):
        unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_zip_members_that_are_no_files(tmp_path: Path, kind: int) -> None:
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        info = zipfile.ZipInfo("odd")
        info.external_attr = (kind | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(SourceError, match="'odd' is a link"):
        unpack(archive, tmp_path / "out")


def test_encrypted_zip_says_so(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "locked.zip", {"a": b"a"})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    with pytest.raises(SourceError, match=r"locked\.zip: the member 'a' is encrypted"):
        unpack(archive, tmp_path / "out")


def test_limits_are_counted_and_not_believed(tmp_path: Path) -> None:
    files = {f"{i}.bin": bytes(100_000) for i in range(10)}
    for kind, make in {"zip": make_zip, "tgz": MAKERS["set.tgz"]}.items():
        archive = make(tmp_path / f"set.{kind}", files)
        for limits, words in (
            (ArchiveConfig(max_members=9), "more than 9 members"),
            (ArchiveConfig(max_unpacked_gb=0.0005), "more than 0.0005 GB"),
            (ArchiveConfig(max_member_gb=0.00009), "is larger than"),
        ):
            with pytest.raises(SourceError, match=words) as caught:
                unpack(archive, tmp_path / "out", limits)
            assert "download.archive." in caught.value.cure
        assert len(unpack(archive, tmp_path / f"whole-{kind}")) == 10


def test_bombs_are_stopped_early(tmp_path: Path) -> None:
    zeros = bytes(200_000_000)
    for kind, make in {"zip": make_zip, "tgz": MAKERS["set.tgz"]}.items():
        archive = make(tmp_path / f"bomb.{kind}", {"a/zeros": zeros})
        with pytest.raises(SourceError, match=r"bomb\..*times the archive's size"):
            unpack(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "lie.zip", {"a": os.urandom(5000)})
    content = bytearray(archive.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(SourceError, match=r"lie\.zip: the member 'a' is damaged"):
        unpack(archive, tmp_path / "out")


def test_huge_tar_header_is_not_read_into_memory(tmp_path: Path) -> None:
    """A pax header that claims to be 3 GB long: tarfile alone would read all of it at once."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 3_000_000_000
    archive = tmp_path / "pax.tar"
    archive.write_bytes(info.tobuf() + bytes(10_240))
    with pytest.raises(SourceError, match=r"pax\.tar is damaged"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.tar.bz2", "set.tar.xz"])
def test_cut_and_damaged_archives(tmp_path: Path, name: str) -> None:
    """Wherever an archive is cut it is refused, also exactly between two members, where tarfile sees an end."""
    content = MAKERS[name](tmp_path / name, {f"yes/{i}.png": os.urandom(700) for i in range(4)}).read_bytes()
    payload = len(content) if name != "set.tar" else 4 * (512 + 1024)
    for length in {*range(600, payload, 512), payload - 1, 512 + 1024, payload // 2}:
        cut = tmp_path / f"cut-{length}"
        cut.write_bytes(content[:length])
        with pytest.raises(SourceError, match=rf"cut-{length}"):
            unpack(cut, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_found_or_harmless(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kind = data.draw(st.sampled_from(["set.zip", "set.tar.gz", "set.tar.xz"]))
        files = {"yes/1.png": bytes(range(256)) * 4, "no/2.png": b"2" * 500}
        archive = MAKERS[kind](Path(folder) / kind, files)
        content = bytearray(archive.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        archive.write_bytes(content)
        try:
            found = unpack(archive, Path(folder) / "out")
        except SourceError as error:
            text = str(error)
        else:
            text = kind
            # A name or a date may have changed, but what was packed came out, each file as it was or not at all.
            assert set(found.values()) <= set(files.values())
        assert kind in text


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.lists(
    st.sampled_from(["..", ".", "", "a", "B", "b", "/", "\\", "C:", "~", "con", "\x00", "é", "\u202e"]),
    min_size=1,
    max_size=5,
).map("/".join)


@settings(max_examples=150, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=5), kind=st.sampled_from(["zip", "tar"]))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_is_ever_written_outside(names: list[str], kind: str) -> None:
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "a" / "b"
        folder.mkdir(parents=True)
        archive = folder / "archive"
        if kind == "zip":
            with zipfile.ZipFile(archive, "w") as packed:
                for name in names:
                    packed.writestr(zipfile.ZipInfo(name), "x")
        else:
            with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
                for name in names:
                    info = tarfile.TarInfo(name)
                    info.size = 1
                    tar.addfile(info, io.BytesIO(b"x"))
        try:
            unpack(archive, folder / "out")
        except SourceError:
            assert not (folder / "out").exists()
        outside = {path for path in Path(outer).rglob("*") if path.is_file() and folder / "out" not in path.parents}
        assert outside == {archive}


@settings(max_examples=200, deadline=None)
@given(name=NAMES)
def test_a_safe_path_stays_below(name: str) -> None:
    try:
        path = safe_path(name, "here")
    except SourceError as error:
        text = str(error)
    else:
        text = "here: the name "
        base = Path("/base/folder")
        assert base in Path(os.path.normpath(base / path)).parents
        NameBook("here").add(path)
    assert text.startswith("here: the name ")


SCRIPT = """
import sys, tarfile
from pathlib import Path
from slicewise.config import DownloadConfig
from slicewise.studies.acquire import acquire
from slicewise.studies.sources import unpack
import os, signal
real = unpack._write
def write(member, path, folder, tally):
    if tally.files == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    real(member, path, folder, tally)
unpack._write = write
acquire([sys.argv[1]], Path(sys.argv[2]), DownloadConfig(keep_free_gb=0), 0)
"""


def test_sigkill_while_unpacking(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "set.tar", {f"yes/{i}.png": bytes([i]) for i in range(5)})
    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", SCRIPT, str(archive), str(out)], check=False)
    assert ended.returncode == -9
    assert not out.exists()
    assert (tmp_path / "out.partial").is_dir()
    assert len(acquire([str(archive)], out, CONFIG, 0).records) == 5
    assert not (tmp_path / "out.partial").exists()
