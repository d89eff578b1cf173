"""The registry: nothing is lost between processes, and one deployment runs at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from api_servers import ROOT
from deploying import BUCKET

import serving.registry
from serving.ledger import Ledger, Version, describe_version, now
from serving.registry import Registry
from serving.storage_folder import FolderStorage
from serving.storage_s3 import S3Storage
from slicewise.errors import ServerError
from slicewise.inference.bundle import load_bundle

WRITES = 12
RACING = """
import sys
from pathlib import Path
from serving.ledger import Version, now
from serving.registry import Registry
from serving.storage_folder import FolderStorage
from serving.storage_s3 import S3Storage

kind, place, who, count = sys.argv[1:]
storage = S3Storage("models", place) if kind == "s3" else FolderStorage(Path(place), "pvc://c")
registry = Registry(storage, "slicewise")
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(count)):
    name = f"{who}-{number}"
    registry.add(Version(name=name, model_version="1", bundle_digest="", storage_uri="", registered=now()))
"""


@pytest.fixture
def folder(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path, "pvc://c")


def version(name: str) -> Version:
    return Version(name=name, model_version=name, bundle_digest=name * 8, storage_uri="", registered=now())


@pytest.mark.parametrize("kind", ["s3", "pvc"])
def test_two_processes_lose_no_entry(kind: str, s3: Any, tmp_path: Path) -> None:
    place = "race" if kind == "s3" else str(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    words = [sys.executable, "-c", RACING, kind, place]
    racers = [subprocess.Popen([*words, who, str(WRITES)], **pipes) for who in ("a", "b")]
    try:
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        assert [racer.wait(120) for racer in racers] == [0, 0]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    storage = S3Storage(BUCKET, place) if kind == "s3" else FolderStorage(tmp_path, "pvc://c")
    ledger = Registry(storage, "slicewise").read()
    expected = {f"{who}-{number}" for who in ("a", "b") for number in range(WRITES)}
    assert {item.name for item in ledger.versions} == expected
    assert {event.version for event in ledger.events if event.state == "candidate"} == expected


def test_one_deployment_at_a_time(folder: FolderStorage) -> None:
    registry = Registry(folder, "slicewise")
    with (
        registry.claim(),
        pytest.raises(ServerError, match="another deployment of slicewise is running: process") as caught,
        Registry(folder, "slicewise").claim(),
    ):
        pass
    assert "slicewise deploy --target kserve --unlock" in caught.value.cure
    with Registry(folder, "another").claim(), registry.claim():
        pass
    assert registry.read().claim is None


def test_a_claim_is_renewed_while_its_holder_lives_and_lapses_after(
    folder: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.registry, "RENEW_S", 0.05)
    monkeypatch.setattr(serving.registry, "CLAIM_S", 1.0)
    registry = Registry(folder, "slicewise")
    with registry.claim():
        first = registry.read().claim
        assert first is not None
        while time.time() < first.until + 0.2:
            time.sleep(0.05)
        with pytest.raises(ServerError, match="is running"), Registry(folder, "slicewise").claim():
            pass
        dead = registry.read()
    # As if that process had been killed: its claim is there, and nobody renews it.
    assert dead.claim is not None
    (folder.folder / "registry" / "slicewise.json").write_text(dead.model_dump_json(), encoding="utf-8")
    deadline = time.monotonic() + 30
    while True:
        try:
            with registry.claim():
                break
        except ServerError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_states_follow_each_other() -> None:
    ledger = Ledger(model_name="slicewise").added(version("1")).moved("1", "serving")
    ledger = ledger.added(version("2")).moved("2", "serving").added(version("3")).added(version("4"))
    assert {item.name: item.state for item in ledger.versions} == {
        "1": "former",
        "2": "serving",
        "3": "rejected",
        "4": "candidate",
    }
    assert ledger.named("3").reason == "4 took its place"
    assert [event.version for event in ledger.events] == ["1", "1", "2", "2", "3", "3", "4"]


def test_a_damaged_registry_is_named_and_left_alone(folder: FolderStorage) -> None:
    folder.write("registry/slicewise.json", b"{}")
    with pytest.raises(ServerError, match=r"pvc://c/registry/slicewise\.json is no registry") as caught:
        Registry(folder, "slicewise").add(version("1"))
    assert "restore it from a backup" in caught.value.cure
    assert (folder.read("registry/slicewise.json") or (b"", ""))[0] == b"{}"


def test_an_entry_tells_where_a_model_comes_from(bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "run-7")
    bundle = load_bundle(bundle_dir)
    entry = describe_version(bundle, "s3://models/x")
    assert entry.run_id == "run-7"
    assert entry.bundle_digest == bundle.digest
    assert entry.name == f"3-{bundle.digest[:12]}"
    assert entry.data_digest == bundle.meta.data_digest
    assert entry.code is not None


def test_many_threads_of_one_process(folder: FolderStorage) -> None:
    registry = Registry(folder, "slicewise")
    threads = [threading.Thread(target=registry.add, args=(version(str(number)),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.read().versions) == 8
