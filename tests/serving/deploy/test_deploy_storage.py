"""The model's way into a bucket or a claim: whole or not there, by real servers and real kills."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_servers import ROOT
from deploying import BUCKET

from serving.ports import free_port
from serving.storage import Storage, open_storage
from serving.storage_folder import FolderStorage
from serving.storage_s3 import S3Storage
from serving.upload import MANIFEST, PROPERTIES, check_store, upload_store
from slicewise.config import ServeConfig
from slicewise.errors import ConfigError, ServerError
from slicewise.inference.bundle import load_bundle

# Runs an upload that the kernel kills while the archive is on its way: half of it is there.
DYING = """
import os, signal, sys, tempfile
from pathlib import Path
from serving.storage_folder import FolderStorage
from serving.storage_s3 import S3Storage
from serving.upload import upload_store
from slicewise.config import ServeConfig
from slicewise.files import atomic_path
from slicewise.inference.bundle import load_bundle

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class DyingFolder(FolderStorage):
    def upload(self, source, name):
        if not name.endswith(".mar"):
            return super().upload(source, name)
        with atomic_path(self.folder / name) as temporary:
            temporary.write_bytes(source.read_bytes()[:1000])
            die()

class DyingBucket(S3Storage):
    def upload(self, source, name):
        if not name.endswith(".mar"):
            return super().upload(source, name)
        place = {"Bucket": self.bucket, "Key": self.key(name)}
        started = self._client.create_multipart_upload(**place)
        body = source.read_bytes()[:1000]
        self._client.upload_part(**place, UploadId=started["UploadId"], PartNumber=1, Body=body)
        die()

kind, place, bundle, archive = sys.argv[1:]
storage = DyingBucket("models", place) if kind == "s3" else DyingFolder(Path(place), "pvc://models/brain")
with tempfile.TemporaryDirectory() as work:
    upload_store(storage, load_bundle(Path(bundle)), Path(archive), ServeConfig(), Path(work))
"""


@pytest.fixture
def config() -> ServeConfig:
    return ServeConfig(storage_uri=f"s3://{BUCKET}/brain/")


@pytest.fixture
def claim(tmp_path: Path) -> ServeConfig:
    (tmp_path / "claim").mkdir()
    return ServeConfig(storage_uri="pvc://models/brain", storage_mount=str(tmp_path / "claim"))


def upload(bundle: Path, archive: Path, config: ServeConfig, storage: Storage | None = None) -> str:
    with tempfile.TemporaryDirectory() as work:
        return upload_store(storage or open_storage(config), load_bundle(bundle), archive, config, Path(work))


def puts(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The keys written, in the order in which the server saw them."""
    lines = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    return [line.split("PUT ")[1].split()[0].split("?")[0] for line in lines if "PUT " in line]


def test_store_is_uploaded_with_its_manifest_last_and_once(
    s3: Any, bundle_dir: Path, archive: Path, config: ServeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        uri = upload(bundle_dir, archive, config)
    assert uri == f"s3://{BUCKET}/brain/3-{load_bundle(bundle_dir).digest[:12]}"
    folder = uri.removeprefix(f"s3://{BUCKET}/")
    names = [PROPERTIES, "model-store/slicewise.mar", MANIFEST]
    sent = puts(caplog)
    assert sent[-1] == f"/{BUCKET}/{folder}/{MANIFEST}"
    assert all(f"/{BUCKET}/{folder}/{name}" in sent for name in names)
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="brain/incoming/")["KeyCount"] == 0
    stored = s3.get_object(Bucket=BUCKET, Key=f"{folder}/model-store/slicewise.mar")["Body"].read()
    assert stored == archive.read_bytes()
    properties = s3.get_object(Bucket=BUCKET, Key=f"{folder}/{PROPERTIES}")["Body"].read().decode()
    assert "inference_address=http://0.0.0.0:8085\n" in properties
    assert "management_address=http://127.0.0.1:" in properties
    assert "model_store=/mnt/models/model-store\n" in properties

    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert upload(bundle_dir, archive, config) == uri
    assert puts(caplog) == []

    # Other settings change one small file; the archive, which pods may be reading, is left alone.
    caplog.clear()
    with caplog.at_level(logging.INFO):
        upload(bundle_dir, archive, config.model_copy(update={"workers": 3}))
    assert {name.rpartition("/")[2] for name in puts(caplog)} == {"config.properties", MANIFEST}


def test_store_on_a_claim_is_the_same(bundle_dir: Path, archive: Path, claim: ServeConfig) -> None:
    uri = upload(bundle_dir, archive, claim)
    version = f"3-{load_bundle(bundle_dir).digest[:12]}"
    assert uri == f"pvc://models/brain/{version}"
    folder = Path(claim.storage_mount) / "brain"
    assert (folder / version / "model-store" / "slicewise.mar").read_bytes() == archive.read_bytes()
    assert load_bundle(folder / "bundles" / version).digest == load_bundle(bundle_dir).digest
    assert not (folder / "incoming" / "slicewise").exists()
    check_store(open_storage(claim), version)


@pytest.mark.parametrize("kind", ["s3", "pvc"])
def test_an_upload_that_was_killed_is_done_again(
    kind: str, s3: Any, bundle_dir: Path, archive: Path, config: ServeConfig, claim: ServeConfig
) -> None:
    used = config if kind == "s3" else claim
    storage, version = open_storage(used), f"3-{load_bundle(bundle_dir).digest[:12]}"
    place = "brain" if kind == "s3" else str(Path(claim.storage_mount) / "brain")
    command = [sys.executable, "-c", DYING, kind, place, str(bundle_dir), str(archive)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-800:]
    with pytest.raises(ServerError, match=rf"{version} is not complete: no manifest\.json") as caught:
        check_store(storage, version)
    assert caught.value.cure == "deploy this version again"
    assert storage.read(f"{version}/model-store/slicewise.mar") is None, "nobody can take a half for a whole"

    upload(bundle_dir, archive, used)
    check_store(storage, version)
    if kind == "s3":
        assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET), "what was begun is not left to be paid for"
        assert s3.list_objects_v2(Bucket=BUCKET, Prefix="brain/incoming/")["KeyCount"] == 0
    else:
        assert not (Path(place) / "incoming" / "slicewise").exists()


def test_half_an_archive_in_place_is_done_again(
    s3: Any, bundle_dir: Path, archive: Path, config: ServeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    key = f"brain/3-{load_bundle(bundle_dir).digest[:12]}/model-store/slicewise.mar"
    s3.put_object(Bucket=BUCKET, Key=key, Body=archive.read_bytes()[:1000])
    with caplog.at_level(logging.INFO):
        upload(bundle_dir, archive, config)
    assert s3.head_object(Bucket=BUCKET, Key=key)["ContentLength"] == archive.stat().st_size
    assert puts(caplog)[-1].endswith(MANIFEST)


@pytest.mark.parametrize("uri", ["", "gs://bucket/x", "s3:///x", "models/slicewise", "s3://b/../x"])
def test_other_storage_is_refused_with_a_cure(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"serve\.storage_uri") as caught:
        open_storage(ServeConfig(storage_uri=uri))
    assert "s3://BUCKET/PREFIX" in caught.value.cure


def test_a_claim_that_is_not_mounted_is_named() -> None:
    with pytest.raises(ConfigError, match=r"serve\.storage_mount: claim models is not mounted here") as caught:
        open_storage(ServeConfig(storage_uri="pvc://models/brain", storage_mount="/nowhere"))
    assert "--set serve.storage_mount=" in caught.value.cure


def test_a_claim_that_cannot_be_written_is_named(bundle_dir: Path, archive: Path, claim: ServeConfig) -> None:
    # A file in the folder's place refuses root too, as a read-only mount does.
    (Path(claim.storage_mount) / "brain").write_text("in the way")
    with pytest.raises(ServerError, match="pvc://models/brain cannot be used: ") as caught:
        upload(bundle_dir, archive, claim)
    assert "mount it for writing" in caught.value.cure


def test_no_bucket_no_server_no_credentials(
    s3: Any, bundle_dir: Path, archive: Path, config: ServeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ServerError, match="no bucket s3://elsewhere"):
        upload(bundle_dir, archive, config.model_copy(update={"storage_uri": "s3://elsewhere/x"}))
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
        away.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(ServerError, match="s3://models cannot be reached") as caught:
            upload(bundle_dir, archive, config)
        assert "AWS_ENDPOINT_URL_S3" in caught.value.cure
    with monkeypatch.context() as nobody:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            nobody.delenv(name)
        nobody.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        nobody.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(ServerError, match="no credentials for s3://models"):
            upload(bundle_dir, archive, config)


def test_a_bucket_that_may_only_be_read_is_named(
    s3: Any,
    s3_url: str,
    bundle_dir: Path,
    archive: Path,
    config: ServeConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import boto3

    iam = boto3.client("iam", endpoint_url=s3_url)
    iam.create_user(UserName="reader")
    allowed = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    httpx.post(f"{s3_url}/moto-api/reset-auth", content=b"0").raise_for_status()
    try:
        with pytest.raises(ServerError, match=r"s3://models refused access \(AccessDenied\)") as caught:
            upload(bundle_dir, archive, config)
    finally:
        httpx.post(f"{s3_url}/moto-api/reset-auth", content=b"inf").raise_for_status()
    assert "may read and write there" in caught.value.cure
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0, "nothing is left of it"


@contextmanager
def refusing_server(status: int, code: str) -> Iterator[str]:
    """A server that has nothing and takes nothing, as S3 says it."""

    class Handler(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            told = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>so it is</Message></Error>".encode()
            self.send_response(status)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_PUT = do_POST = do_DELETE = refuse

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code", "message", "cure"),
    [
        (400, "ExpiredToken", "the credentials for s3://models have expired", "AWS_SESSION_TOKEN"),
        (403, "QuotaExceeded", r"s3://models has no room left \(QuotaExceeded\)", "raise the quota"),
        (403, "SignatureDoesNotMatch", r"refused access \(SignatureDoesNotMatch\)", "check the key"),
        (400, "InvalidRequest", "s3://models refused: InvalidRequest so it is", "the storage's own log"),
    ],
)
def test_what_a_storage_says_is_told_with_a_cure(
    status: int,
    code: str,
    message: str,
    cure: str,
    bundle_dir: Path,
    archive: Path,
    config: ServeConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with refusing_server(status, code) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        with pytest.raises(ServerError, match=message) as caught:
            upload(bundle_dir, archive, config)
    assert cure in caught.value.cure


@pytest.mark.parametrize("kind", ["s3", "pvc"])
def test_swap_writes_only_over_what_was_read(kind: str, s3: Any, tmp_path: Path) -> None:
    storage: Storage = S3Storage(BUCKET, "x") if kind == "s3" else FolderStorage(tmp_path, "pvc://c")
    assert storage.read("a") is None
    assert storage.swap("a", b"1", None)
    assert not storage.swap("a", b"2", None), "somebody was first"
    found = storage.read("a")
    assert found is not None
    assert storage.swap("a", b"3", found[1])
    assert not storage.swap("a", b"4", found[1]), "the tag is an old one"
    assert (storage.read("a") or (b"", ""))[0] == b"3"
