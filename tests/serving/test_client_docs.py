"""The examples of docs/client.md, and the README's requests, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from uploaded_study import make_upload

from serving.client import Client
from serving.state import StackState

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS, GRPC_ADDRESS = "http://127.0.0.1:8080", "127.0.0.1:8081"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.M | re.S)
EXAMPLES = BLOCK.findall(TEXT)


@pytest.fixture
def workdir(tmp_path: Path, encoded: Callable[..., bytes]) -> Path:
    """The folder that the page describes."""
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "upload").mkdir()
    upload = make_upload(tmp_path / "upload")
    volume = upload.phantom.images["flair"]
    for name, z in (("slice", volume.shape[2] // 2), ("other", volume.shape[2] // 3)):
        plane = (volume[:, :, z].T / volume.max() * 255).astype(np.uint8)
        (folder / f"{name}.png").write_bytes(encoded(plane))
    for name in ("flair", "t1"):
        (folder / f"{name}.nii.gz").write_bytes(upload.nifti[name].read_bytes())
    return folder


def run(language: str, code: str, stack: StackState, folder: Path) -> None:
    ours = code.replace(ADDRESS, stack.gateway_url).replace(GRPC_ADDRESS, f"127.0.0.1:{stack.grpc_port}")
    command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([*command, ours], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{code}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}"


def test_examples_run(stack: StackState, workdir: Path) -> None:
    """All of them in one folder, in the page's order; the Python ones share one interpreter, to spare its start."""
    languages = [language for language, _ in EXAMPLES]
    assert languages.count("bash") == 1
    assert languages.count("python") == 4
    run("python", "\n".join(code for language, code in EXAMPLES if language == "python"), stack, workdir)
    assert (workdir.parent / "mask.nii.gz").read_bytes()[:2] == b"\x1f\x8b"
    run("bash", next(code for language, code in EXAMPLES if language == "bash"), stack, workdir)
    written = {path.name for path in (workdir.parent / "results").iterdir()}
    assert written == {"predictions.csv", "predictions.json", "predictions.jsonl", "masks", "overlays"}


def test_requests_of_the_readme_run(stack: StackState, workdir: Path) -> None:
    examples = BLOCK.findall(README)
    assert [language for language, _ in examples] == ["bash", "python"]
    for language, code in examples:
        # A request that is refused must fail the test, which plain curl does not.
        run(language, code.replace("curl -s", "curl -s --fail-with-body"), stack, workdir)
    assert (workdir.parent / "results" / "predictions.csv").is_file()


def test_methods_on_the_page_are_there() -> None:
    named = set(re.findall(r"client\.(\w+)\(", TEXT))
    assert named
    assert not [name for name in named if not hasattr(Client, name)]
