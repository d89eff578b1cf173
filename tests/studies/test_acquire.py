from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from slicewise.config import DownloadConfig, PhantomConfig
from slicewise.errors import SourceError
from slicewise.studies.acquire import acquire, load_dataset

CONFIG = DownloadConfig(phantom=PhantomConfig(n_studies=3, shape=(24, 24, 8), spacing_mm=(7.0, 7.0, 15.0)))


def images(folder: Path, n: int = 4) -> Path:
    for kind in ("yes", "no"):
        (folder / kind).mkdir(parents=True)
        for number in range(n):
            (folder / kind / f"{number}.png").write_bytes(f"{kind}{number}".encode())
    return folder


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


@pytest.mark.parametrize("source", ["s3://bucket/x", "kaggle", "msd", "/nowhere/at/all"])
def test_unusable_source_is_named_with_a_cure(tmp_path: Path, source: str) -> None:
    with pytest.raises(SourceError, match=source) as caught:
        acquire([source], tmp_path / "out", CONFIG, seed=0)
    assert "folder" in caught.value.cure
    assert not (tmp_path / "out").exists()


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
