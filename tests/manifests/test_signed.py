"""The init container of overlay ``signed``: its own command, on a folder signed as the overlay says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from built import built, of_kind

PLACES = {"/models": "models", "/signing": "signing"}


@pytest.fixture(scope="module")
def tool() -> str:
    beside = Path(sys.executable).with_name("model_signing")
    found = str(beside) if beside.is_file() else shutil.which("model_signing")
    if found is None or shutil.which("openssl") is None:
        pytest.skip("openssl or model_signing is not installed (pip install model-signing pyopenssl)")
    return found


@pytest.fixture
def signed(tool: str, tmp_path: Path) -> Path:
    """A folder with ``models/slicewise/1``, its signature beside it, and the public key."""
    keys = tmp_path / "signing"
    model = tmp_path / "models" / "slicewise" / "1"
    keys.mkdir()
    model.mkdir(parents=True)
    (model / "slicewise.mar").write_bytes(b"archive" * 1000)
    openssl = [
        "openssl",
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        str(tmp_path / "signing.key"),
    ]
    public = ["openssl", "ec", "-in", str(tmp_path / "signing.key"), "-pubout", "-out", str(keys / "signing.pub")]
    signature = ["--private_key", str(tmp_path / "signing.key"), "--signature", str(model.with_suffix(".sig"))]
    for command in (openssl, public, [tool, "sign", "key", str(model), *signature]):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return tmp_path


def verify(tool: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The init container's command, with its mounted folders here."""
    predictor = of_kind(built("signed"), "InferenceService")[0]["spec"]["predictor"]
    (container,) = predictor["initContainers"]
    mounts = {entry["mountPath"] for entry in container["volumeMounts"]}
    words = [*container["command"], *container["args"]]
    assert words[0] == "model_signing"
    assert mounts == PLACES.keys()
    for mounted, here in PLACES.items():
        words = [word.replace(f"{mounted}/", f"{folder / here}/") for word in words]
    return subprocess.run([tool, *words[1:]], capture_output=True, text=True, timeout=60, check=False)


def test_signed_model_is_let_through(tool: str, signed: Path) -> None:
    done = verify(tool, signed)
    assert done.returncode == 0, done.stderr
    assert "Verification succeeded" in done.stdout + done.stderr


@pytest.mark.parametrize("what", ["changed", "added", "removed", "unsigned"])
def test_damaged_model_is_stopped(tool: str, signed: Path, what: str) -> None:
    archive = signed / "models" / "slicewise" / "1" / "slicewise.mar"
    match what:
        case "changed":
            archive.write_bytes(b"other" * 1000)
        case "added":
            archive.with_name("more.mar").write_bytes(b"more")
        case "removed":
            archive.unlink()
        case _:
            archive.parent.with_suffix(".sig").unlink()
    done = verify(tool, signed)
    assert done.returncode != 0
    assert "succeeded" not in done.stdout + done.stderr


def test_claim_that_is_verified_is_the_one_that_is_served() -> None:
    predictor = of_kind(built("signed"), "InferenceService")[0]["spec"]["predictor"]
    volumes = [volume["persistentVolumeClaim"] for volume in predictor["volumes"] if "configMap" not in volume]
    path = predictor["initContainers"][0]["command"][-1].removeprefix("/models/")
    assert predictor["model"]["storageUri"] == f"pvc://{volumes[0]['claimName']}/{path}"
