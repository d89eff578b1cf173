"""Create, update and wait for an InferenceService on a real API server, with the test as KServe's controller."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from api_servers import WAIT_S, Controller, wait_for
from deploying import deploy, states
from models import Model, write_model

import serving.kserve_connect
from serving.kserve_cluster import GROUP, Cluster, difference, digest_of
from serving.kserve_connect import connect
from serving.kserve_errors import cluster_errors, is_object_missing
from serving.kserve_manifest import RUNTIME, changes, inference_service
from serving.kserve_target import deploy_inference_service
from serving.torchserve.archive import build_archive
from slicewise.config import ServeConfig
from slicewise.errors import BundleError, ServerError

URI = "s3://models/slicewise/3-0123456789ab"


def result(future: Future[dict[str, Any]]) -> dict[str, Any]:
    return future.result(timeout=WAIT_S)


def test_create_then_update_then_ready(
    controller: Controller,
    models: list[Model],
    claim_config: ServeConfig,
    background: ThreadPoolExecutor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, config, url = models[0], claim_config, models[0].gateway_url
    with caplog.at_level(logging.INFO):
        future = background.submit(deploy, model, config)
        service = wait_for(controller.service, "the InferenceService was not created")
        wait_for(lambda: "not looked at by KServe yet" in caplog.text, "no progress is told")
        controller.say(1, "Unknown")
        wait_for(lambda: "PredictorReady is Unknown" in caplog.text, "no progress is told")
        controller.say(1, "True", url=url)
        served = result(future)
    assert served["url"] == url
    assert served["verified"], "the gateway itself was asked for its digest"
    assert "classifies in" in caplog.text, "a slice was classified and segmented"
    assert served["created"]
    assert (served["target"], served["digest"]) == ("kserve", model.digest)
    assert (served["name"], served["namespace"]) == ("slicewise", controller.namespace)
    assert service["spec"]["predictor"]["model"]["storageUri"] == served["storage_uri"]

    # What an operator set stays; what a new deployment says comes on top.
    container = service["spec"]["transformer"]["containers"][0] | {"image": "registry.example/gateway:own"}
    operator = {
        "predictor": {"maxReplicas": 3, "model": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
        "transformer": {"containers": [container]},
    }
    controller.patch({"spec": operator})
    slower = config.model_copy(update={"max_request_mb": 99})
    future = background.submit(deploy, model, slower)

    def updated() -> dict[str, Any] | None:
        found = controller.service()
        return found if found and found["metadata"]["generation"] == 3 else None

    spec = wait_for(updated, "the InferenceService was not updated")["spec"]
    # The status still tells of the first generation: nobody may take that for ready.
    assert not future.done()
    controller.say(3, "True", url=url)
    assert result(future)["created"] is False
    assert spec["predictor"]["maxReplicas"] == 3
    assert spec["predictor"]["model"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["transformer"]["containers"][0]["image"] == "registry.example/gateway:own"
    for part in (spec["predictor"]["model"], spec["transformer"]["containers"][0]):
        assert {"name": "SLICEWISE_MAX_REQUEST_MB", "value": "99"} in part["env"]


def test_an_old_model_that_still_answers_is_not_taken_for_the_new(
    controller: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    controller.gateways[models[1].digest] = models[0].gateway_url
    config = claim_config.model_copy(update={"timeout_s": 1})
    with (
        controller.reconciling(),
        pytest.raises(ServerError, match=r"not ready after 5 s: .* still serves") as caught,
    ):
        deploy(models[1], config)
    assert f"kubectl -n {controller.namespace} describe inferenceservice slicewise" in caught.value.cure


def test_a_model_that_does_not_load_fails_at_once(
    controller: Controller, models: list[Model], claim_config: ServeConfig, background: ThreadPoolExecutor
) -> None:
    future = background.submit(deploy, models[0], claim_config)
    wait_for(controller.service, "the InferenceService was not created")
    failed = {
        "transitionStatus": "BlockedByFailedLoad",
        "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no space left", "exitCode": 1},
        "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
        "copies": {"failedCopies": 1},
    }
    controller.say(1, "False", modelStatus=failed)
    with pytest.raises(ServerError, match="does not load: no space left"):
        result(future)
    assert states(claim_config) == {"3": "rejected"}


def test_what_the_cluster_lacks_is_said_before_anything_is_uploaded(
    controller: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    config = claim_config.model_copy(update={"namespace": "empty"})
    with pytest.raises(ServerError, match=f"no ServingRuntime {RUNTIME} in namespace empty") as caught:
        deploy(models[0], config)
    assert "manifests/overlays/minimal" in caught.value.cure
    assert not uploaded(config)


def uploaded(config: ServeConfig) -> list[Path]:
    return list(Path(config.storage_mount).rglob("*.mar"))


def test_a_cluster_without_kserve(
    controller: Controller, models: list[Model], claim_config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A group that the server does not know: what it says of KServe's, where that is not installed.
    monkeypatch.setattr(serving.kserve_connect, "GROUP", "nobody.example")
    with pytest.raises(ServerError, match="the cluster knows no InferenceService") as caught:
        deploy(models[0], claim_config)
    assert caught.value.cure == "install KServe 0.16 or newer, and make the namespace"
    assert not uploaded(claim_config)


def test_a_model_that_the_gate_refused(controller: Controller, claim_config: ServeConfig, tmp_path: Path) -> None:
    refused = {"gate": {"passed": False, "reasons": ["roc_auc 0.71 is below 0.85"]}}
    bundle = write_model(tmp_path, "6", 7, metrics=refused)
    archive = build_archive(bundle, tmp_path / "archive", claim_config)
    with pytest.raises(BundleError, match=r"the gate refused this model: roc_auc 0\.71 is below 0\.85") as caught:
        deploy_inference_service(bundle, archive, claim_config)
    assert "serve.require_gate=false" in caught.value.cure
    assert controller.service() is None
    assert not uploaded(claim_config)


def test_a_foreign_service_of_the_same_name_is_left_alone(
    controller: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    foreign = inference_service(claim_config, URI, "0" * 64)
    foreign["spec"] = {"predictor": {"sklearn": {"storageUri": "s3://elsewhere/model", "name": "", "resources": {}}}}
    create(controller, foreign)
    with pytest.raises(ServerError, match=r"predictor of another kind \(sklearn\)"):
        deploy(models[0], claim_config)
    assert not uploaded(claim_config)


def create(controller: Controller, manifest: dict[str, Any]) -> dict[str, Any]:
    place = (GROUP, "v1beta1", controller.namespace, "inferenceservices")
    found: dict[str, Any] = controller.api.create_namespaced_custom_object(*place, manifest)
    return found


class Interrupted(Cluster):
    """Somebody else changes the object after every look of ours, so many times."""

    times = 0
    change: Any = None

    def read(self) -> dict[str, Any] | None:
        found = super().read()
        if found is not None and self.times > 0:
            self.times -= 1
            self.change(self.times)
        return found


@pytest.fixture
def interrupted(controller: Controller, claim_config: ServeConfig) -> Interrupted:
    create(controller, inference_service(claim_config, URI, "0" * 64))
    found = Interrupted(connect(claim_config).client, claim_config)
    found.change = lambda left: controller.patch({"spec": {"predictor": {"maxReplicas": 10 + left}}})
    return found


def test_a_conflict_is_tried_again_and_the_other_change_is_kept(
    controller: Controller, claim_config: ServeConfig, interrupted: Interrupted, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted.times = 3
    with caplog.at_level(logging.INFO):
        generation = interrupted.apply(inference_service(claim_config, f"{URI}-new", "1" * 64))
    found = controller.service()
    assert found is not None
    assert found["metadata"]["generation"] == generation == 5
    assert found["spec"]["predictor"]["maxReplicas"] == 10
    assert found["spec"]["predictor"]["model"]["storageUri"] == f"{URI}-new"
    assert digest_of(found) == "1" * 64
    # Three looks were overtaken: the server said 409 to what followed each.
    assert caplog.text.count("was changed meanwhile: reading it again") == 3


def test_an_object_that_is_changed_all_the_time_is_given_up(
    claim_config: ServeConfig, interrupted: Interrupted
) -> None:
    interrupted.times = 100
    with pytest.raises(ServerError, match="InferenceService slicewise is changed all the time — deploy again"):
        interrupted.apply(inference_service(claim_config, f"{URI}-new", "1" * 64))


def test_another_deployment_that_was_faster_is_not_overwritten(
    controller: Controller, claim_config: ServeConfig, interrupted: Interrupted
) -> None:
    interrupted.times = 1
    faster = inference_service(claim_config, f"{URI}-other", "2" * 64)
    body = {"metadata": {"annotations": faster["metadata"]["annotations"]}, "spec": faster["spec"]}
    interrupted.change = lambda _: controller.patch(body)
    with pytest.raises(ServerError, match="was faster: it brought bundle 222222222222"):
        interrupted.apply(inference_service(claim_config, f"{URI}-new", "1" * 64))
    assert digest_of(controller.service()) == "2" * 64


def test_a_created_one_that_somebody_else_created_first(controller: Controller, claim_config: ServeConfig) -> None:
    cluster = connect(claim_config)
    manifest = inference_service(claim_config, URI, "1" * 64)
    create(controller, manifest)
    # As if we had looked before it was there: the server refuses to create it a second time.
    assert cluster._try(manifest, None) is None
    assert cluster.apply(manifest) == 1, "the same again changes nothing"


def test_a_change_by_somebody_else_is_not_overwritten(controller: Controller, claim_config: ServeConfig) -> None:
    manifest = inference_service(claim_config, URI, "0" * 64)
    created = create(controller, manifest)
    controller.patch({"spec": {"predictor": {"maxReplicas": 2}}})
    with pytest.raises(ServerError, match="changed by somebody else"), cluster_errors(claim_config):
        controller.patch(changes(created, manifest))


def test_putting_back_restores_every_field(controller: Controller, claim_config: ServeConfig) -> None:
    before = create(controller, inference_service(claim_config, URI, "0" * 64))
    cluster = connect(claim_config)
    other = claim_config.model_copy(update={"workers": 3})
    cluster.apply(inference_service(other, f"{URI}-new", "1" * 64))
    controller.patch({"spec": {"predictor": {"canaryTrafficPercent": 10, "nodeSelector": {"gpu": "yes"}}}})
    cluster.restore(before, "3" * 64)
    assert digest_of(controller.service()) == "1" * 64, "somebody else's model is left alone"
    cluster.restore(before, "1" * 64)
    after = controller.service()
    assert after is not None
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]


def test_the_difference_is_a_merge_patch() -> None:
    have = {"a": 1, "b": {"c": 2, "d": 3}, "e": [1], "f": {"g": 1}}
    wanted = {"a": 1, "b": {"c": 2}, "e": [1, 2], "h": {"i": 1}}
    assert difference(have, wanted) == {"b": {"d": None}, "e": [1, 2], "f": None, "h": {"i": 1}}
    assert difference(wanted, wanted) == {}


def test_an_unknown_kind_is_told_from_a_missing_object(controller: Controller) -> None:
    from kubernetes.client import ApiException

    for group, missing in ((GROUP, True), ("nobody.example", False)):
        with pytest.raises(ApiException) as caught:
            controller.api.get_namespaced_custom_object(group, "v1beta1", "x", "inferenceservices", "slicewise")
        assert is_object_missing(caught.value) is missing
    with pytest.raises(ServerError, match="knows no InferenceService") as named, cluster_errors(ServeConfig()):
        controller.api.get_namespaced_custom_object("nobody.example", "v1", "x", "inferenceservices", "slicewise")
    assert "install KServe" in named.value.cure


def test_archive_of_another_bundle_is_refused(models: list[Model], tmp_path: Any) -> None:
    with pytest.raises(BundleError, match="made of another bundle"):
        deploy_inference_service(models[1].bundle.folder, models[0].archive, ServeConfig())
    (tmp_path / "broken.mar").write_bytes(b"\x00" * 100)
    with pytest.raises(BundleError, match="no archive of a bundle"):
        deploy_inference_service(models[1].bundle.folder, tmp_path / "broken.mar", ServeConfig())
