"""Every kubectl command of docs/kubernetes.md, in its order against a real API server, and what it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from built import MANIFESTS, ROOT

BLOCK = re.compile(r"^```\n(\$ .*?)^```", re.M | re.S)


def commands() -> list[tuple[str, str]]:
    """Command and what the page shows of its output, without those that are marked as not executed."""
    text = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    joined = "\n".join(BLOCK.findall(text)).replace("\\\n", "")
    parts = re.split(r"^\$ ", joined, flags=re.M)[1:]
    pairs = [part.partition("\n") for part in parts]
    return [
        (line, shown.strip())
        for line, _, shown in pairs
        if line.startswith("kubectl") and "(not executed" not in line
    ]


def test_commands_print_what_the_page_shows(kubeconfig: Path, tmp_path: Path) -> None:
    if "SLICEWISE_TEST_KUBECONFIG" in os.environ:
        pytest.skip("the page starts with an empty cluster, which the given one need not be")
    assert len(commands()) > 15
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    (tmp_path / "signing.pub").write_text("a public key\n")
    faults = []
    for command, shown in commands():
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=os.environ | {"KUBECONFIG": str(kubeconfig)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.stdout.strip() != shown:
            faults.append(f"$ {command}\n{done.stdout}{done.stderr}")
    assert not faults, "\n".join(faults)
