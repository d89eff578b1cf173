"""``s3://`` and ``msd`` against a real S3-speaking server."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from relay import Given, Relay, run_relay
from s3_server import KEY, PRIVATE, PUBLIC, SECRET, S3Server, run_s3_server

from slicewise.config import DownloadConfig
from slicewise.config.download import S3Config
from slicewise.errors import SourceError
from slicewise.studies.acquire import acquire, load_dataset

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def relay(s3: S3Server) -> Iterator[Relay]:
    with run_relay(s3.url) as running:
        yield running


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def settings(url: str, **changes: object) -> DownloadConfig:
    return DownloadConfig(s3=S3Config(endpoint_url=url), retries=3, backoff_s=0.01, keep_free_gb=0, **changes)


def pictures(n: int = 3, size: int = 100) -> dict[str, bytes]:
    return {f"{kind}/{i}.png": os.urandom(size) for kind in ("yes", "no") for i in range(n)}


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def put(s3: S3Server, bucket: str, prefix: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        s3.put(bucket, f"{prefix}/{name}", content)


def contents(root: Path, name: str) -> dict[str, bytes]:
    folder = root / name
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_public_prefix_without_credentials(s3: S3Server, relay: Relay, tmp_path: Path) -> None:
    files = pictures()
    put(s3, PUBLIC, "a/set", {**files, "README.txt": b"not used", ".DS_Store": b"clutter"})
    put(s3, PUBLIC, "a/set2", pictures())
    seen: list[tuple[str, int, int]] = []
    made = acquire(["s3://public/a/set"], tmp_path / "out", settings(relay.url), 0, lambda *args: seen.append(args))
    assert contents(made.root, "set") == files
    entry = json.loads((made.root / "manifest.json").read_text())["sources"][0]
    assert entry["from"] == "s3://public/a/set"
    assert {e["path"]: e["bytes"] for e in entry["fetched"]} == {**dict.fromkeys(files, 100), "README.txt": 8}
    assert all(e["etag"] for e in entry["fetched"])
    assert any("7 of 7 files, 608 bytes of 608 bytes" in text for text, _, _ in seen)
    assert all("set2" not in one.path and "DS_Store" not in one.path for one in relay.given if one.method == "GET")


def test_second_call_fetches_nothing_and_a_new_object_alone(s3: S3Server, relay: Relay, tmp_path: Path) -> None:
    files = pictures()
    put(s3, PUBLIC, "second", files)
    config = settings(relay.url)
    first = acquire(["s3://public/second"], tmp_path / "out", config, 0)
    inode = (first.root / "manifest.json").stat().st_ino
    relay.given.clear()
    assert acquire(["s3://public/second"], tmp_path / "out", config, 0) == first
    assert relay.ranges() == []
    assert (first.root / "manifest.json").stat().st_ino == inode
    put(s3, PUBLIC, "second", {"yes/new.png": b"new", "no/0.png": b"other content"})
    again = acquire(["s3://public/second"], tmp_path / "out", config, 0)
    assert sorted(one.path for one in relay.ranges()) == ["/public/second/no/0.png", "/public/second/yes/new.png"]
    assert contents(again.root, "second") == {**files, "yes/new.png": b"new", "no/0.png": b"other content"}
    (again.root / "second/yes/new.png").write_bytes(b"BAD")
    relay.given.clear()
    assert acquire(["s3://public/second"], tmp_path / "out", config, 0) == again
    assert [one.path for one in relay.ranges()] == ["/public/second/yes/new.png"]
    s3.client.delete_object(Bucket=PUBLIC, Key="second/no/0.png")
    assert len(acquire(["s3://public/second"], tmp_path / "out", config, 0).records) == 6


@pytest.mark.usefixtures("credentials")
def test_credentials_open_a_private_bucket(s3: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = pictures()
    put(s3, PRIVATE, "set", files)
    with caplog.at_level(logging.DEBUG):
        made = acquire(["s3://private/set"], tmp_path / "out", settings(s3.url), 0)
    assert contents(made.root, "set") == files
    written = b"".join(path.read_bytes() for path in made.root.rglob("*.json"))
    assert SECRET.encode() not in written
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("slicewise")]
    assert SECRET not in "\n".join(ours)


def test_refusals_help(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3, PRIVATE, "set", pictures())
    config = settings(s3.url)

    def refused(source: str, config: DownloadConfig = config) -> SourceError:
        with pytest.raises(SourceError) as caught:
            acquire([source], tmp_path / "out", config, 0)
        assert SECRET not in str(caught.value)
        assert "wrong-secret" not in str(caught.value)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.partial").exists()
        return caught.value

    assert "AWS_ACCESS_KEY_ID" in refused("s3://private/set").cure
    assert "holds no files" in refused("s3://public/nothing-here").message
    assert "no keys" in refused("s3://AKIA:wrong-secret@bucket/x").message
    assert "s3://bucket/prefix" in refused("s3://").cure
    password = settings("http://someone:wrong-secret@127.0.0.1:1")
    assert "endpoint_url" in refused("s3://public/x", password).message
    assert "cannot be reached" in refused("s3://public/x", settings("http://127.0.0.1:1")).message
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    error = refused("s3://private/set")
    assert "does not accept the credentials" in error.message
    assert "anonymous=true" in error.cure
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert "'no-such-bucket'" in refused("s3://no-such-bucket/x").message
    monkeypatch.setenv("AWS_PROFILE", "absent")
    assert "AWS_PROFILE" in refused("s3://private/set").cure


@pytest.mark.usefixtures("credentials")
def test_hostile_keys_are_refused_by_name(s3: S3Server, tmp_path: Path) -> None:
    # This server tidies backslashes and dots away; test_source_archive has all hostile names.
    cases = {"case": "YES/1.png", "control": "yes/a\nb.png"}
    for prefix, key in cases.items():
        put(s3, PUBLIC, prefix, {"yes/1.png": b"1", key: b"2"})
        with pytest.raises(SourceError) as caught:
            acquire([f"s3://public/{prefix}"], tmp_path / "out", settings(s3.url), 0)
        assert repr(key) in caught.value.message
        assert not (tmp_path / "out").exists()


def test_busy_and_broken_servers_are_asked_again(s3: S3Server, relay: Relay, tmp_path: Path) -> None:
    files = pictures(n=2, size=300_000)
    put(s3, PUBLIC, "flaky", files)
    listing, getting = iter(["503", "503", "drop", ""]), iter(["503", "drop", "503", "drop", "drop", ""])
    relay.fail = lambda one: next(getting if one.range else listing, "")
    made = acquire(["s3://public/flaky"], tmp_path / "out", settings(relay.url, part_mb=0.1), 0)
    assert contents(made.root, "flaky") == files
    # What came before a connection broke was kept: only the other half was asked for again.
    halves = [one for one in relay.ranges() if one.n_bytes and one.n_bytes < 100_000]
    assert len(halves) >= 3
    assert sum(one.n_bytes for one in relay.ranges()) == 1_200_000


def test_too_many_failures_name_the_object(s3: S3Server, relay: Relay, tmp_path: Path) -> None:
    put(s3, PUBLIC, "broken", pictures(1))
    relay.fail = lambda one: "503" if one.range else ""
    with pytest.raises(SourceError, match=r"s3://public/broken/.*failed after 4 tries.*503") as caught:
        acquire(["s3://public/broken"], tmp_path / "out", settings(relay.url), 0)
    assert "same command again" in caught.value.cure
    assert not (tmp_path / "out").exists()


def test_object_that_changes_meanwhile_is_fetched_anew(s3: S3Server, relay: Relay, tmp_path: Path) -> None:
    old, new = os.urandom(400_000), os.urandom(350_000)
    put(s3, PUBLIC, "moving", {"yes/1.png": old, "no/1.png": b"no"})
    once = threading.Lock()

    def change(one: Given) -> str:
        later = one.path.endswith("yes/1.png") and one.range and not one.range.startswith("bytes=0-")
        if later and once.acquire(blocking=False):
            s3.put(PUBLIC, "moving/yes/1.png", new)
        return ""

    relay.fail = change
    made = acquire(["s3://public/moving"], tmp_path / "out", settings(relay.url, part_mb=0.1, workers=1), 0)
    assert contents(made.root, "moving")["yes/1.png"] == new
    assert 412 in [one.status for one in relay.ranges()]


def test_etag_is_checked_where_it_is_an_md5(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slicewise.studies.sources import s3_client

    put(s3, PUBLIC, "md5", pictures(1))
    config = settings(s3.url)
    real = s3_client.S3Object.read

    def corrupted(self: s3_client.S3Object, start: int, stop: int) -> Iterator[bytes]:
        for chunk in real(self, start, stop):
            yield bytes([chunk[0] ^ 1]) + chunk[1:]

    with monkeypatch.context() as patch:
        patch.setattr(s3_client.S3Object, "read", corrupted)
        with pytest.raises(SourceError, match=r"is not what its ETag says, 3 times") as caught:
            acquire(["s3://public/md5"], tmp_path / "out", config, 0)
    assert "check_etag" in caught.value.cure
    assert len(acquire(["s3://public/md5"], tmp_path / "out", config, 0).records) == 2


SCRIPT = """
import sys
from pathlib import Path
from slicewise.config import DownloadConfig
from slicewise.studies.acquire import acquire
acquire([sys.argv[1]], Path(sys.argv[2]), DownloadConfig.model_validate_json(sys.argv[3]), 0)
"""


def test_sigkill_then_going_on(s3: S3Server, relay: Relay, tmp_path: Path) -> None:
    """A killed download leaves no dataset; the next call asks for no byte of a part that was on the disk."""
    body = tar_of(pictures(n=2, size=500_000))
    s3.put(PUBLIC, "set.tar", body)
    config = settings(relay.url, part_mb=0.1, workers=2)
    out = tmp_path / "out"
    relay.halt_after = 9
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "s3://public/set.tar", str(out), config.model_dump_json()]
    )
    assert relay.halted.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    (journal,) = (tmp_path / "out.partial").rglob("*.parts.jsonl")
    done = {json.loads(line)["part"] for line in journal.read_text().splitlines()[1:] if line.endswith("}")}
    assert len(done) >= 7
    relay.halt_after = None
    relay.gate.set()
    before = len(relay.ranges())
    made = acquire(["s3://public/set.tar"], out, config, 0)
    starts = {int(one.range.removeprefix("bytes=").split("-")[0]) // 100_000 for one in relay.ranges()[before:]}
    assert starts
    assert not starts & done
    assert sum(one.n_bytes for one in relay.ranges()[before:]) == len(body) - 100_000 * len(done)
    assert len(made.records) == 4
    assert made == load_dataset(out)
    assert not (tmp_path / "out.partial").exists()


def test_interrupt_stops_at_once_and_the_next_call_goes_on(s3: S3Server, relay: Relay, tmp_path: Path) -> None:
    """Ctrl-C while parts are waiting in the queue and others for a server that is silent."""
    s3.put(PUBLIC, "slow/yes/1.png", os.urandom(3_000_000))
    config = settings(relay.url, part_mb=0.1, workers=2, timeout_s=1)
    relay.halt_after = 5
    command = [sys.executable, "-c", SCRIPT, "s3://public/slow", str(tmp_path / "out"), config.model_dump_json()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert relay.halted.wait(60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in said
    assert "tries" not in said
    # The two that were waiting, and at most one more each.
    assert len(relay.ranges()) <= 9
    relay.halt_after = None
    relay.gate.set()
    assert len(acquire(["s3://public/slow"], tmp_path / "out", config, 0).records) == 1


def test_only_the_wanted_studies_are_fetched(s3: S3Server, relay: Relay, tmp_path: Path) -> None:
    put(s3, PUBLIC, "many", pictures(n=10))
    made = acquire(["s3://public/many"], tmp_path / "out", settings(relay.url, max_studies=4), 0)
    assert [record.tumour for record in made.records] == [False, False, True, True]
    assert len(relay.ranges()) == 4


def test_a_cache_stays_and_is_used(s3: S3Server, relay: Relay, tmp_path: Path) -> None:
    files = pictures()
    put(s3, PUBLIC, "cached", files)
    config = settings(relay.url, cache=str(tmp_path / "cache"))
    acquire(["s3://public/cached"], tmp_path / "one", config, 0)
    relay.given.clear()
    made = acquire(["s3://public/cached"], tmp_path / "two", config, 0)
    assert relay.ranges() == []
    assert contents(made.root, "cached") == files


def test_msd_comes_from_its_own_server(s3: S3Server, tmp_path: Path) -> None:
    s3.put(PUBLIC, "Task01.tar", tar_of(pictures()))
    config = DownloadConfig(msd_uri="s3://public/Task01.tar", msd_endpoint_url=s3.url, msd_region="us-east-1")
    made = acquire(["msd"], tmp_path / "out", config, 0)
    assert len(made.records) == 6
    assert made.sources[0].name == "msd"
    assert made.sources[0].licence == "CC BY-SA 4.0"
    assert acquire(["MSD"], tmp_path / "out", config, 0) == made


def test_full_disk_is_seen_first(s3: S3Server, relay: Relay, tmp_path: Path) -> None:
    put(s3, PUBLIC, "large", pictures(1))
    config = settings(relay.url).model_copy(update={"keep_free_gb": 1e6})
    with pytest.raises(SourceError, match=r"needs 200 bytes and 1e\+06 GB are to stay free, but .* has .* free"):
        acquire(["s3://public/large"], tmp_path / "out", config, 0)
    assert relay.ranges() == []


def test_a_real_study_as_a_tar(s3: S3Server, shared_data: Path, tmp_path: Path) -> None:
    study = sorted((shared_data / "brats").iterdir())[0]
    archive = tmp_path / "study.tar"
    with tarfile.open(archive, "w") as packed:
        packed.add(study, study.name)
    s3.put(PUBLIC, "real/study.tar", archive.read_bytes())
    made = acquire(["s3://public/real/"], tmp_path / "out", settings(s3.url, part_mb=1), 0)
    assert [record.study_id for record in made.records] == [study.name]
    (image,) = made.records[0].images["flair"]
    assert (made.root / image).read_bytes() == (study / Path(image).name).read_bytes()
