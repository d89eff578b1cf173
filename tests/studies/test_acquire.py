from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slicewise.config import DownloadConfig, PhantomConfig
from slicewise.errors import RunLockedError, SourceError
from slicewise.studies.acquire import acquire, load_dataset
from slicewise.studies.dataset import study_files
from slicewise.studies.sources.workplace import workplace

CONFIG = DownloadConfig(phantom=PhantomConfig(n_studies=3, shape=(24, 24, 8), spacing_mm=(7.0, 7.0, 15.0)))


def images(folder: Path, n: int = 4) -> Path:
    for kind in ("yes", "no"):
        (folder / kind).mkdir(parents=True)
        for number in range(n):
            (folder / kind / f"{number}.png").write_bytes(f"{kind}{number}".encode())
    return folder


def test_phantoms_that_were_copied_under_other_names_stay_phantoms(tmp_path: Path) -> None:
    """A folder that somebody calls patients: the files' headers still say what they are."""
    first = acquire(["phantom"], tmp_path / "first", CONFIG, seed=1)
    for record in first.records:
        for path in (*(path for role in record.images.values() for path in role), *record.labels):
            target = tmp_path / "patients" / Path(path).parent.name / Path(path).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(first.root / path, target)
    again = acquire([str(tmp_path / "patients")], tmp_path / "again", CONFIG, seed=1)
    assert len(again.records) == 3
    assert all(record.synthetic for record in again.records)
    assert again.sources[0].synthetic


def test_phantoms_and_a_folder(tmp_path: Path) -> None:
    source = images(tmp_path / "My Set")
    (source / "yes" / "notes.txt").write_text("not used")
    made = acquire(["phantom", str(source)], tmp_path / "out", CONFIG, seed=1)
    assert made == load_dataset(tmp_path / "out")
    assert len(made.records) == 3 + 8
    assert [record.synthetic for record in made.records] == [True] * 3 + [False] * 8
    assert [(s.name, s.layout, s.n_studies) for s in made.sources] == [
        ("phantom", "brats", 3),
        ("my_set", "images", 8),
    ]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["sources"][1]["from"] == str(source)
    for entry in manifest["files"]:
        content = (tmp_path / "out" / entry["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])
    assert not (tmp_path / "out/my_set/yes/notes.txt").exists()


def test_files_are_hard_links_not_symlinks(tmp_path: Path) -> None:
    source = images(tmp_path / "set")
    (source / "yes" / "link.png").symlink_to(source / "yes" / "0.png")
    acquire([str(source)], tmp_path / "out", CONFIG, seed=0)
    assert (tmp_path / "out/set/yes/0.png").samefile(source / "yes/0.png")
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_digest_follows_content(tmp_path: Path) -> None:
    source = images(tmp_path / "set")
    first = acquire([str(source)], tmp_path / "a", CONFIG, seed=0).digest
    assert acquire([str(source)], tmp_path / "b", CONFIG, seed=0).digest == first
    (source / "no" / "1.png").unlink()
    (source / "no" / "1.png").write_bytes(b"other")
    assert acquire([str(source)], tmp_path / "c", CONFIG, seed=0).digest != first


def test_same_names_in_two_sources_stay_apart(tmp_path: Path) -> None:
    one = acquire(["phantom"], tmp_path / "one", CONFIG, seed=1).root / "phantom"
    shutil.copytree(one, tmp_path / "copy" / "phantom")
    made = acquire([str(one), str(tmp_path / "copy" / "phantom")], tmp_path / "out", CONFIG, seed=1)
    ids = [record.study_id for record in made.records]
    assert [source.name for source in made.sources] == ["phantom", "phantom-2"]
    assert len(set(ids)) == 6
    assert ids[3] == f"phantom-2_{ids[0]}"


def test_max_studies_is_even_over_the_classes(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"max_studies": 4})
    made = acquire([str(images(tmp_path / "set", 10))], tmp_path / "out", config, seed=0)
    assert [record.tumour for record in made.records] == [False, False, True, True]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/at/all", "/nowhere/at/all"),
        ("ftp://someone:password@host/x", "ftp://"),
        ("https://host/set.zip?token=password", "https://"),
        ("Phantoms", "did you mean 'phantom'"),
        ("kagle", "did you mean 'kaggle'"),
        ("", "is not there"),
    ],
)
def test_unusable_source_is_named_with_a_cure(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        acquire([source], tmp_path / "out", CONFIG, seed=0)
    for kind in ("folder", ".zip", "s3://", "msd", "kaggle", "phantom"):
        assert kind in caught.value.cure
    assert "password" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_second_call_leaves_what_is_right(tmp_path: Path) -> None:
    source = images(tmp_path / "set")
    words = ["phantom", str(source)]
    first = acquire(words, tmp_path / "out", CONFIG, seed=0)
    manifest = tmp_path / "out" / "manifest.json"
    inode = manifest.stat().st_ino
    assert acquire(words, tmp_path / "out", CONFIG, seed=0) == first
    assert manifest.stat().st_ino == inode
    # Anything that matters makes it anew: seed, sources, their content, and damage to the dataset itself.
    assert acquire(words, tmp_path / "out", CONFIG, seed=1).digest != first.digest
    assert acquire(words, tmp_path / "out", CONFIG, seed=0).digest == first.digest
    (source / "yes" / "new.png").write_bytes(b"new")
    more = acquire(words, tmp_path / "out", CONFIG, seed=0)
    assert len(more.records) == len(first.records) + 1
    victim = next((tmp_path / "out").rglob("*_t2.nii.gz"))
    whole = victim.read_bytes()
    victim.write_bytes(bytes(len(whole)))
    assert acquire(words, tmp_path / "out", CONFIG, seed=0) == more
    assert victim.read_bytes() == whole
    (tmp_path / "out" / ".acquired.json").write_text("{}")
    assert acquire(words, tmp_path / "out", CONFIG, seed=0) == more


def test_only_one_download_to_a_folder(tmp_path: Path) -> None:
    with workplace(tmp_path / "out"), pytest.raises(RunLockedError, match="another download"):
        acquire(["phantom"], tmp_path / "out", CONFIG, seed=0)
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.tex").write_text("precious")
    with pytest.raises(SourceError, match="is in the way"):
        acquire(["phantom"], tmp_path / "out", CONFIG, seed=0)
    assert (tmp_path / "out.partial" / "thesis.tex").exists()


def test_links_do_not_lead_out_of_a_source(tmp_path: Path) -> None:
    source, secret = images(tmp_path / "set"), tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (source / "yes" / "link.png").symlink_to(secret)
    with pytest.raises(SourceError, match=r"yes/link\.png is a link to .*secret\.png, outside") as caught:
        acquire([str(source)], tmp_path / "out", CONFIG, seed=0)
    assert "follow_links" in caught.value.cure
    trusting = CONFIG.model_copy(update={"follow_links": True})
    made = acquire([str(source)], tmp_path / "out", trusting, seed=0)
    assert (made.root / "set/yes/link.png").read_bytes() == b"secret"
    (source / "yes" / "link.png").unlink()
    (source / "yes" / "link.png").symlink_to(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"link\.png cannot be read"):
        acquire([str(source)], tmp_path / "out", CONFIG, seed=0)
    (source / "yes" / "link.png").unlink()
    os.mkfifo(source / "yes" / "link.png")
    with pytest.raises(SourceError, match="no regular file"):
        acquire([str(source)], tmp_path / "out", CONFIG, seed=0)


def test_full_disk_is_seen_first(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"keep_free_gb": 1e6})
    with pytest.raises(SourceError, match=r"download to .* needs .* kB and 1e\+06 GB are to stay free"):
        acquire(["phantom"], tmp_path / "out", config, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot write"):
        acquire(["phantom"], tmp_path / "file" / "out", CONFIG, seed=0)
    inside = CONFIG.model_copy(update={"cache": str(tmp_path / "out" / "cache")})
    with pytest.raises(SourceError, match=r"download\.cache=.* lies in the output"):
        acquire(["phantom"], tmp_path / "out", inside, seed=0)


def test_phantoms_say_so(tmp_path: Path) -> None:
    made = acquire(["phantom"], tmp_path / "out", CONFIG, seed=0)
    assert made.sources[0].synthetic
    assert "synthetic" in made.sources[0].licence
    assert all(record.synthetic for record in made.records)
    entry = json.loads((tmp_path / "out" / "manifest.json").read_text())["sources"][0]
    assert entry["synthetic"] is True


SCRIPT = """
import os, signal, sys
from pathlib import Path
from slicewise.config import DownloadConfig
from slicewise.studies import acquire
from slicewise.studies.sources import assembly
left = int(sys.argv[3])
def killer(function):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped
for name in ("link_or_copy", "stamp", "build_manifest", "write_json", "replace_folder"):
    setattr(assembly, name, killer(getattr(assembly, name)))
acquire.acquire([sys.argv[1]], Path(sys.argv[2]), DownloadConfig(keep_free_gb=0), 0)
"""


@pytest.mark.parametrize("steps", [0, 3, 6, 9, 10, 11])
def test_sigkill_at_any_step_leaves_the_old_or_the_new(tmp_path: Path, steps: int) -> None:
    """Four files: 4 links, 4 stamps, the digests, two files written, and the rename are 12 steps."""
    source, out = images(tmp_path / "set", 2), tmp_path / "out"
    old = acquire([str(source)], out, CONFIG, seed=0)
    (source / "yes" / "0.png").unlink()
    (source / "yes" / "0.png").write_bytes(b"a new content")
    command = [sys.executable, "-c", SCRIPT, str(source), str(out), str(steps)]
    assert subprocess.run(command, check=False).returncode == -9
    assert load_dataset(out) == old
    new = acquire([str(source)], out, CONFIG, seed=0)
    assert new.digest != old.digest
    assert load_dataset(out) == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set"]


def test_phantoms_go_on_after_a_failure(tmp_path: Path) -> None:
    whole = acquire(["phantom"], tmp_path / "whole", CONFIG, seed=0)

    def stop(text: str, done: int, total: int) -> None:
        if text == "phantom" and done == 2:
            raise KeyboardInterrupt

    config = CONFIG.model_copy(update={"workers": 1})
    with pytest.raises(KeyboardInterrupt):
        acquire(["phantom"], tmp_path / "out", config, seed=0, progress=stop)
    assert not (tmp_path / "out").exists()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.partial").rglob("*.nii.gz")}
    assert len(before) >= 10
    made = acquire(["phantom"], tmp_path / "out", config, seed=0)
    assert made.digest == whole.digest
    after = {path.name: path.stat().st_mtime_ns for path in made.root.rglob("*.nii.gz")}
    assert before.items() <= after.items()


@pytest.mark.parametrize("name", ["brats", "lgg", "kaggle"])
def test_real_sets(shared_data: Path, tmp_path: Path, name: str) -> None:
    config = CONFIG.model_copy(update={"max_studies": 2})
    made = acquire([str(shared_data / name)], tmp_path / "out", config, seed=0)
    assert len(made.records) == 2
    for record in made.records:
        for path in study_files(record):
            origin = shared_data / name / path.removeprefix(f"{name}/")
            assert (made.root / path).stat().st_size == origin.stat().st_size


def test_a_foreign_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("precious")
    with pytest.raises(SourceError, match="not a dataset"):
        acquire(["phantom"], tmp_path / "home", CONFIG, seed=0)
    source = images(tmp_path / "set")
    for out in (source, source / "out", tmp_path):
        with pytest.raises(SourceError):
            acquire([str(source)], out, CONFIG, seed=0)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "precious"


def test_failure_leaves_the_old_dataset(tmp_path: Path) -> None:
    old = acquire(["phantom"], tmp_path / "out", CONFIG, seed=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty"):
        acquire(["phantom", str(tmp_path / "empty")], tmp_path / "out", CONFIG, seed=9)
    assert load_dataset(tmp_path / "out") == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "out"]


def test_load_refuses_what_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a dataset"):
        load_dataset(tmp_path)
    root = acquire(["phantom"], tmp_path / "out", CONFIG, seed=0).root
    text = (root / "manifest.json").read_text()
    for broken in (text[:50], text.replace('"version": 1', '"version": 2'), text.replace("Phantom_0001", "Q")):
        (root / "manifest.json").write_text(broken)
        with pytest.raises(SourceError, match=r"manifest\.json"):
            load_dataset(root)
    (root / "manifest.json").write_text(text)
    victim = next(root.rglob("*_t2.nii.gz"))
    victim.unlink()
    with pytest.raises(SourceError, match=victim.name):
        load_dataset(root)
