"""A kube-apiserver with etcd from the folder that ``KUBEBUILDER_ASSETS`` names, as ``setup-envtest`` fills it.

It has no KServe: the folder of its definitions (``kubectl get crd … -o yaml``, or KServe's release) is named by
``SLICEWISE_TEST_CRDS``, else taken from ``../shared/crds``.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serving.ports import LOOPBACK, free_port

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
CRDS_VARIABLE = "SLICEWISE_TEST_CRDS"
START_S = 120.0
ISSUER = "https://kubernetes.default.svc"


@contextmanager
def envtest_server(assets: Path, crds: Path, work: Path) -> Iterator[Path]:
    """Its kubeconfig; both processes end with the context."""
    if not list(crds.glob("*inferenceservices*.yaml")):
        pytest.skip(f"no definitions of KServe in {crds}: name their folder in {CRDS_VARIABLE}")
    key = work / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    token, port, store, peer = secrets.token_hex(16), free_port(), free_port(), free_port()
    (work / "tokens.csv").write_text(f'{token},admin,1,"system:masters"\n', encoding="utf-8")
    url = f"https://{LOOPBACK}:{port}"
    kubeconfig = work / "kubeconfig"
    cluster = {"server": url, "insecure-skip-tls-verify": True}
    settings = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    }
    kubeconfig.write_text(json.dumps(settings), encoding="utf-8")
    etcd = [str(assets / "etcd"), *_etcd_flags(work, store, peer)]
    server = [str(assets / "kube-apiserver"), *_server_flags(work, key, port, store)]
    with _running(etcd, work / "etcd.log"), _running(server, work / "apiserver.log"):
        client = httpx.Client(base_url=url, verify=False, headers={"authorization": f"Bearer {token}"}, timeout=60)
        with client:
            _wait(lambda: client.get("/readyz").is_success, f"no server; see {work}/apiserver.log")
            for path in sorted(crds.glob("*.yaml")):
                _apply(client, path)
        yield kubeconfig


def _etcd_flags(work: Path, store: int, peer: int) -> list[str]:
    here, there = f"http://{LOOPBACK}:{store}", f"http://{LOOPBACK}:{peer}"
    return [
        f"--data-dir={work}/etcd",
        f"--listen-client-urls={here}",
        f"--advertise-client-urls={here}",
        f"--listen-peer-urls={there}",
        f"--initial-advertise-peer-urls={there}",
        f"--initial-cluster=default={there}",
        "--unsafe-no-fsync",
    ]


def _server_flags(work: Path, key: Path, port: int, store: int) -> list[str]:
    return [
        f"--etcd-servers=http://{LOOPBACK}:{store}",
        f"--secure-port={port}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--cert-dir={work}/certs",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        f"--service-account-issuer={ISSUER}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--authorization-mode=RBAC",
        f"--token-auth-file={work}/tokens.csv",
        "--disable-admission-plugins=ServiceAccount",
    ]


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def _apply(client: httpx.Client, path: Path) -> None:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(path.read_text(encoding="utf-8"), loader)
    place = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
    told = client.patch(
        place,
        params={"fieldManager": "tests", "force": "true"},
        content=json.dumps(crd),
        headers={"content-type": "application/apply-patch+yaml"},
    )
    assert told.is_success, f"{path.name}: {told.text[:400]}"

    def established() -> bool:
        conditions = (client.get(place).json().get("status") or {}).get("conditions") or []
        return any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions)

    _wait(established, f"{path.name} was not established")


def _wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def assets_folder() -> Path | None:
    """The folder of the binaries, where the machine names one."""
    given = os.environ.get(ASSETS_VARIABLE)
    return Path(given) if given else None
