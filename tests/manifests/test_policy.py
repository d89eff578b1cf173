"""The overlays, with the pods that KServe makes of them, and the Dockerfiles against checkov's policies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from built import OVERLAYS, ROOT, SERVING, kubectl_binary

POLICY = ROOT / "policy"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kubectl_binary()
    folder = tmp_path_factory.mktemp("policy")
    subprocess.run([sys.executable, str(POLICY / "render.py"), str(folder)], check=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def checkov() -> str:
    """Of ``make policy``; its pins do not fit into the project's environment."""
    beside = ROOT / ".venv-policy" / "bin" / "checkov"
    found = str(beside) if beside.is_file() else os.environ.get("CHECKOV") or shutil.which("checkov")
    if not found:
        pytest.skip("checkov is not installed (make policy installs it)")
    return found


def check(checkov: str, framework: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [checkov, "--config-file", str(POLICY / "checkov.yaml"), "--framework", framework, "-d", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_every_pod_is_rendered_for_the_check(rendered: Path) -> None:
    assert sorted(path.stem for path in rendered.iterdir()) == OVERLAYS
    for overlay in SERVING:
        objects = list(yaml.safe_load_all((rendered / f"{overlay}.yaml").read_text(encoding="utf-8")))
        pods = [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Deployment"]
        assert len(pods) == (4 if overlay == "canary" else 2)
        assert all(pod["containers"][0]["image"] and pod["securityContext"] for pod in pods)


def test_overlays_pass(checkov: str, rendered: Path) -> None:
    done = check(checkov, "kubernetes", rendered)
    assert done.returncode == 0, done.stdout
    assert "Failed checks: 0" in done.stdout


def test_dockerfiles_pass(checkov: str) -> None:
    done = check(checkov, "dockerfile", ROOT / "images")
    assert done.returncode == 0, done.stdout
    assert "Failed checks: 0" in done.stdout


def test_a_privileged_pod_fails(checkov: str, rendered: Path, tmp_path: Path) -> None:
    objects = list(yaml.safe_load_all((rendered / "minimal.yaml").read_text(encoding="utf-8")))
    pod = next(item for item in objects if item["kind"] == "Deployment")
    pod["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = True
    (tmp_path / "wrong.yaml").write_text(json.dumps(pod), encoding="utf-8")
    done = check(checkov, "kubernetes", tmp_path)
    assert done.returncode == 1
    assert "CKV_K8S_16" in done.stdout
