"""What a result says of its origin."""

from __future__ import annotations

import getpass
import json
import re
import socket
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import slicewise
from slicewise.config import load_config
from slicewise.files import sha256_json
from slicewise.provenance import ROOT, code_version, provenance


def git(folder: Path, *words: str) -> str:
    names = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    answer = subprocess.run(["git", *names, "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    try:
        git(folder, "init")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    (folder / "a.txt").write_text("one")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "one")
    return folder


def test_it_holds_what_a_result_depends_on() -> None:
    config = load_config("smoke").model_dump(mode="json")
    found = provenance(config, 7, "abc")
    assert found["slicewise"] == slicewise.__version__
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["packages"]["numpy"] == metadata.version("numpy")
    assert found["torch_threads"] == torch.get_num_threads()
    assert len(found["cuda"]) == torch.cuda.device_count()
    assert (found["seed"], found["data_digest"]) == (7, "abc")
    assert found["configuration"]["train"] == config["train"]
    assert found["configuration_sha256"] == sha256_json(found["configuration"])
    age = datetime.now(UTC) - datetime.fromisoformat(found["time"])
    assert abs(age.total_seconds()) < 600
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_it_tells_nothing_of_the_machine_and_its_user(tmp_path: Path) -> None:
    config = {"a": {"source": str(tmp_path / "scans"), "home": "~/x", "list": ["C:\\data\\b", Path("/etc/c")]}}
    found = provenance({**config, "uri": "https://user:secret@tracking.example.org:5000/x"}, 0, None)
    text = json.dumps(found)
    assert str(tmp_path) not in text
    assert str(ROOT) not in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)
    assert not re.search(rf"\b{re.escape(getpass.getuser())}\b", text)
    assert "secret" not in text
    assert "example.org" not in text
    assert found["configuration"]["a"] == {
        "source": "<path>/scans",
        "home": "<path>/x",
        "list": ["<path>/b", "<path>/c"],
    }
    assert found["configuration"]["uri"] == "https://<address>"


def test_the_digest_is_the_same_wherever_the_data_lie() -> None:
    one, two = (provenance({"source": f"/{disk}/brats", "lr": 0.1}, 0, None) for disk in ("one", "two"))
    assert one["configuration_sha256"] == two["configuration_sha256"]
    other = provenance({"source": "/one/brats", "lr": 0.2}, 0, None)
    assert other["configuration_sha256"] != one["configuration_sha256"]


def test_words_that_are_no_path_stay() -> None:
    config = {"a": "s3://bucket/prefix", "b": "kaggle:owner/name", "c": "dice_bce", "d": "", "e": None, "f": [1, 2.5]}
    assert provenance(config, None, None)["configuration"] == config


@given(st.text(max_size=12))
def test_a_path_of_any_kind_is_cut(name: str) -> None:
    found = provenance({"a": f"/secret-place/{name}", "b": f"C:\\secret-place\\{name}"}, 0, None)
    assert "secret-place/" not in json.dumps(found)
    assert "secret-place\\" not in json.dumps(found)


def test_the_commit_and_whether_files_differ_from_it(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert code_version(checkout) == {"commit": commit, "dirty": False}
    (checkout / "new.txt").write_text("two")
    assert code_version(checkout) == {"commit": commit, "dirty": True}


def test_variables_of_git_do_not_lead_to_another_checkout(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert code_version(checkout) is not None


def test_no_checkout_no_commit(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package installed inside somebody else's checkout is not of its commit."""
    (checkout / "site-packages").mkdir()
    assert code_version(checkout / "site-packages") is None
    empty = tmp_path / "empty"
    (empty / ".git").mkdir(parents=True)
    assert code_version(empty) is None
    monkeypatch.setenv("PATH", str(empty))
    assert code_version(checkout) is None


def test_what_json_has_no_word_for_is_refused() -> None:
    with pytest.raises(TypeError):
        provenance({"a": object()}, 0, None)
