"""A Kubeflow Model Registry is told of every version, through its official client."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from model_registry_server import Records, model_registry_server

from serving.ledger import Version, now
from serving.ports import free_port
from serving.registry import Registry
from serving.registry_kubeflow import mirror_of
from serving.storage_folder import FolderStorage
from slicewise.config import ServeConfig

pytest.importorskip("model_registry", reason="no Model Registry client here: pip install model-registry")


def version(name: str) -> Version:
    return Version(
        name=name,
        model_version=name,
        bundle_digest=name * 32,
        storage_uri=f"s3://models/{name}",
        registered=now(),
        metrics={"roc_auc": {"value": 0.9, "low": 0.8}, "gate": {"passed": True}},
        run_id="run-7",
        data_digest="d" * 64,
    )


def told(records: Records) -> dict[str, dict[str, str]]:
    """The properties of every version there."""
    rows = {}
    for row in records.only("model_versions"):
        values = row["customProperties"].items()
        rows[row["name"]] = {key: next(v for k, v in value.items() if k != "metadataType") for key, value in values}
    return rows


def test_versions_digests_lineage_and_states_are_there(tmp_path: Path) -> None:
    with model_registry_server() as records:
        config = ServeConfig(model_registry=records.url)
        registry = Registry(FolderStorage(tmp_path, "pvc://c"), "slicewise", mirror_of(config))
        registry.add(version("1"))
        registry.move("1", "serving")
        registry.add(version("2"))
        registry.move("2", "serving")
        registry.add(version("3"))
        registry.move("3", "rejected", "error rate 0.5")
        assert [row["name"] for row in records.only("registered_models")] == ["slicewise"]
        found = told(records)
        assert {name: row["state"] for name, row in found.items()} == {
            "1": "former",
            "2": "serving",
            "3": "rejected",
        }
        assert found["3"]["reason"] == "error rate 0.5"
        assert found["1"]["bundle_digest"] == "1" * 32
        assert (found["1"]["run_id"], found["1"]["data_digest"]) == ("run-7", "d" * 64)
        assert found["1"]["metric.roc_auc"] == 0.9
        assert {row["name"]: row["state"] for row in records.only("model_versions")}["3"] == "ARCHIVED"
        assert [row["uri"] for row in records.only("model_artifacts")] == [f"s3://models/{n}" for n in "123"]


def test_one_that_is_away_stops_no_deployment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = ServeConfig(model_registry=f"http://127.0.0.1:{free_port()}")
    registry = Registry(FolderStorage(tmp_path, "pvc://c"), "slicewise", mirror_of(config))
    with caplog.at_level(logging.WARNING):
        registry.add(version("1"))
    assert "does not know of 1: " in caplog.text
    assert registry.read().named("1").state == "candidate"


def test_none_is_asked_for_by_default() -> None:
    assert mirror_of(ServeConfig()) is None
