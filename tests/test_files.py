from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slicewise.files import atomic_folder, atomic_path, read_json, sha256_file, sha256_json, write_json, write_text

# Kills itself with SIGKILL just before the n-th file-system step after the old content is in place.
KILLED = """
import os, signal, sys
from pathlib import Path
from slicewise.files import atomic_folder, write_text
target, stop = Path(sys.argv[2]), int(sys.argv[3])
steps, busy = 0, False
WATCHED = ("open", "os.", "shutil.", "tempfile.")
def hook(event, arguments):
    global steps
    if event.startswith(WATCHED):
        steps += 1
        if steps == stop:
            os.kill(os.getpid(), signal.SIGKILL)
def file():
    write_text(target, "new" * 1000)
def folder():
    with atomic_folder(target) as made:
        for name in ("a", "b"):
            (made / name).write_text("new")
sys.addaudithook(hook)
{"file": file, "folder": folder}[sys.argv[1]]()
"""


def killed_at(kind: str, target: Path, step: int) -> bool:
    """Run the writer until its n-th step; False when it finished before that."""
    code = subprocess.run([sys.executable, "-c", KILLED, kind, target, str(step)], check=False).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.is_dir() else {}


def test_a_kill_at_any_step_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    target, step, seen = tmp_path / "file", 1, set()
    target.write_text("old")
    while killed_at("file", target, step):
        seen.add(target.read_text())
        step += 1
    assert step > 3
    assert seen <= {"old", "new" * 1000}
    assert target.read_text() == "new" * 1000


def test_a_kill_at_any_step_leaves_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    old, new = {"a": "old", "c": "old"}, {"a": "new", "b": "new"}
    step, killed, broken = 1, True, []
    while killed:
        target = tmp_path / f"folder-{step}"
        target.mkdir()
        for name, text in old.items():
            (target / name).write_text(text)
        killed = killed_at("folder", target, step)
        if content(target) not in (old, new):
            broken.append((step, content(target)))
        step += 1
    assert step > 5
    assert not broken
    assert content(target) == new


def test_an_error_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("halfway")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_leaves_the_old_folder_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "a").write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), atomic_folder(target) as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError("halfway")
    assert content(target) == {"a": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    for name in ("a", "b"):
        with atomic_folder(target) as temporary:
            (temporary / name).write_text(name)
    assert content(target) == {"b": "b"}
    assert target.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    """Temporary files are private; what they become is read by other users, e.g. in another container."""
    write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_json_round_trip_and_no_nan(tmp_path: Path) -> None:
    value = {"naïve": [1, 2.5, None, True], "z": {"a": "µ"}}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(tmp_path / "v.json", {"x": bad})
    assert read_json(tmp_path / "v.json") == value


def test_digests(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000  # more than one chunk
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()
    assert sha256_json({"b": 1, "a": [2]}) == sha256_json(json.loads('{"a": [2], "b": 1}'))
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
