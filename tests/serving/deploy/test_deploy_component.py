"""The pipeline's stage ``deploy`` in a cluster: what it hands to Kubeflow and what the registry keeps of the run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from api_servers import Controller
from deploying import ledger
from models import Model

from components.deploy.stage import run
from slicewise.config import ServeConfig
from slicewise.files import read_json


def artifact(path: Path) -> Any:
    return SimpleNamespace(path=str(path), metadata={})


def test_the_stage_deploys_and_tells(
    controller: Controller,
    models: list[Model],
    claim_config: ServeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "run-7")
    model, deployment = models[0], artifact(tmp_path / "deployment.json")
    controller.gateways[model.digest] = model.gateway_url
    bundle, archive = artifact(model.bundle.folder), artifact(model.archive.parent)
    with controller.reconciling():
        run(bundle, archive, claim_config.model_dump(mode="json"), "kserve", "", deployment)
    told = read_json(Path(deployment.path))
    assert told["url"] == model.gateway_url
    assert (told["version"], told["registry_state"], told["verified"]) == (model.name, "serving", True)
    assert deployment.metadata == {
        "url": model.gateway_url,
        "target": "kserve",
        "version": model.name,
        "registry_state": "serving",
        "digest": model.digest,
        "storage_uri": f"pvc://models/brain/{model.name}",
        "verified": True,
    }
    assert ledger(claim_config)["versions"][0]["run_id"] == "run-7"

    # A bad one ends the task with one line that says why.
    models[1].predictor.refuse_every = 2
    controller.gateways[models[1].digest] = models[1].gateway_url
    bundle, archive = artifact(models[1].bundle.folder), artifact(models[1].archive.parent)
    with controller.reconciling(), pytest.raises(SystemExit) as ended:
        run(bundle, archive, claim_config.model_dump(mode="json"), "kserve", "", artifact(tmp_path / "other.json"))
    assert ended.value.code == 1
    assert f"stage failed: the canary of {models[1].name} failed at 10 %: error rate" in capsys.readouterr().err
    assert not (tmp_path / "other.json").exists()
