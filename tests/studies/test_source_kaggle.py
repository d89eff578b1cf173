"""``kaggle`` with the official client, against a server on loopback that speaks its API."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from kaggle_server import SIGNATURE, KaggleServer, run_kaggle_server

from slicewise.config import DownloadConfig
from slicewise.errors import SourceError
from slicewise.studies.acquire import acquire

# Importing the client makes a folder in the home directory, so it is looked for only.
pytestmark = pytest.mark.skipif(find_spec("kaggle") is None, reason="no Kaggle client here: pip install kaggle")

IMAGES, LGG = "brain-mri-images-for-brain-tumor-detection", "lgg-mri-segmentation"
CONFIG = DownloadConfig(retries=3, backoff_s=0.01, keep_free_gb=0, part_mb=0.02)
KEY = "legacy-key-that-must-not-show"
VARIABLES = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "KAGGLE_PROXY")


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KaggleServer]:
    """The server, with the client led to it by its own settings and a proxy, and nobody signed in."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with run_kaggle_server() as server:
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        from kaggle.api.kaggle_api_extended import KaggleApi

        # What that variable does when the client is imported under it, for the processes that start later.
        monkeypatch.setattr(KaggleApi, "args", ["--local", "--verbose"])
        server.accounts.add("Basic " + base64.b64encode(f"someone:{KEY}".encode()).decode())
        yield server


@pytest.fixture
def signed_in(kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", KEY)


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    files = {f"{kind}/{i}.jpg": os.urandom(20_000) for kind in ("yes", "no") for i in range(3)}
    # As Kaggle packs it: everything twice.
    return files | {f"brain_tumor_dataset/{name}": content for name, content in files.items()}


@pytest.mark.usefixtures("signed_in")
def test_a_known_set_end_to_end(
    kaggle: KaggleServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    files = pictures()
    kaggle.sets[f"navoneel/{IMAGES}"] = zip_of(files)
    seen: list[str] = []
    with caplog.at_level(logging.DEBUG):
        made = acquire([f"kaggle:{IMAGES}"], tmp_path / "out", CONFIG, 0, lambda text, *_: seen.append(text))
    assert len(made.records) == 6
    for record in made.records:
        (path,) = record.images["image"]
        assert (made.root / path).read_bytes() == files[path.removeprefix(f"{IMAGES}/")]
    assert len(kaggle.ranges) > 5
    assert any(text.startswith("unpacking") for text in seen)
    told = "".join(path.read_text() for path in made.root.rglob("*.json")) + "".join(seen)
    told += "".join(record.getMessage() for record in caplog.records if record.name.startswith("slicewise"))
    assert KEY not in told
    assert SIGNATURE not in told
    assert capfd.readouterr().out == ""
    kaggle.ranges.clear()
    assert acquire([f"kaggle:{IMAGES}"], tmp_path / "out", CONFIG, 0) == made
    assert kaggle.ranges == []


@pytest.mark.usefixtures("signed_in")
def test_kaggle_alone_is_the_configured_sets(kaggle: KaggleServer, tmp_path: Path) -> None:
    kaggle.sets[f"navoneel/{IMAGES}"] = zip_of(pictures())
    kaggle.sets["me/more"] = zip_of({"yes/a.png": b"a"})
    config = CONFIG.model_copy(update={"kaggle_datasets": (IMAGES, "me/more")})
    made = acquire(["kaggle"], tmp_path / "out", config, 0)
    assert [(s.given, s.name, s.n_studies) for s in made.sources] == [
        (f"kaggle:{IMAGES}", IMAGES, 6),
        ("kaggle:me/more", "more", 1),
    ]
    assert DownloadConfig().kaggle_datasets == (IMAGES, LGG)


def test_a_token_of_the_newer_kind(kaggle: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.sets["me/more"] = zip_of({"yes/a.png": b"a"})
    kaggle.token = "KGAT_new"
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_new")
    assert len(acquire(["kaggle:me/more"], tmp_path / "out", CONFIG, 0).records) == 1


def test_nobody_signed_in(kaggle: KaggleServer, tmp_path: Path) -> None:
    kaggle.sets["me/more"] = zip_of({"yes/a.png": b"a"})
    with pytest.raises(SourceError, match="nobody is signed in to Kaggle") as caught:
        acquire(["kaggle:me/more"], tmp_path / "out", CONFIG, 0)
    for word in ("https://www.kaggle.com/settings/api", "KAGGLE_API_TOKEN", "KAGGLE_KEY", "~/.kaggle/kaggle.json"):
        assert word in caught.value.cure
    assert not (tmp_path / "out.partial").exists()


def test_refusals_help(kaggle: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: str) -> SourceError:
        with pytest.raises(SourceError) as caught:
            acquire([source], tmp_path / "out", CONFIG, 0)
        return caught.value

    assert IMAGES in refused("kaggle:unknown-short-name").cure
    assert "kaggle:owner/name" in refused("kaggle:../x").cure
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", "wrong-key")
    error = refused("kaggle:me/more")
    assert "does not accept the credentials" in error.message
    assert "wrong-key" not in str(error)
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    assert "no data set me/more" in refused("kaggle:me/more").message
    assert "https://www.kaggle.com/datasets/closed/set" in refused("kaggle:closed/set").cure
    kaggle.sets["me/text"] = b"<html>not a zip</html>" * 100
    assert "kaggle:me/text" in refused("kaggle:me/text").message


@pytest.mark.usefixtures("signed_in")
def test_dropped_connections_are_made_again(kaggle: KaggleServer, tmp_path: Path) -> None:
    body = zip_of({f"yes/{i}.png": os.urandom(20_000) for i in range(5)})
    kaggle.sets["me/more"] = body
    # The first answer is the one whose headers alone the client looks at.
    kaggle.drop_after = [len(body), 7_000, 0, 3_000]
    made = acquire(["kaggle:me/more"], tmp_path / "out", CONFIG, 0)
    assert len(made.records) == 5
    assert len(kaggle.ranges) == -(-len(body) // 20_000) + 3


@pytest.mark.usefixtures("signed_in")
def test_goes_on_after_a_failure(kaggle: KaggleServer, tmp_path: Path) -> None:
    body = zip_of({f"yes/{i}.png": os.urandom(20_000) for i in range(5)})
    kaggle.sets["me/more"] = body
    config = CONFIG.model_copy(update={"workers": 1, "retries": 0})
    kaggle.drop_after = [len(body), 20_000, 20_000, 5_000]
    with pytest.raises(SourceError, match=r"fetching kaggle:me/more failed after 1 try"):
        acquire(["kaggle:me/more"], tmp_path / "out", config, 0)
    (journal,) = (tmp_path / "out.partial").rglob("*.parts.jsonl")
    assert [json.loads(line)["part"] for line in journal.read_text().splitlines()[1:]] == [0, 1]
    kaggle.ranges.clear()
    assert len(acquire(["kaggle:me/more"], tmp_path / "out", config, 0).records) == 5
    assert sum(size for _, size in kaggle.ranges) == len(body) - 40_000


def test_the_command_line_without_credentials(kaggle: KaggleServer, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "slicewise.cli",
        "download",
        "--source",
        "kaggle",
        "--out",
        str(tmp_path / "out"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1].startswith("error: nobody is signed in to Kaggle")
