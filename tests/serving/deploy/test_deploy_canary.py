"""The canary with plain Deployments: real gateways, a real API server, the test as KServe's controller."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from api_servers import MANIFESTS, Controller
from deploying import deploy, ledger, limited, states
from models import Model

from serving.canary_beside import SHARE_ANNOTATION
from serving.kserve_cluster import GROUP, STOP_ANNOTATION, digest_of
from slicewise.config import ServeConfig
from slicewise.errors import ServerError


@pytest.fixture
def served(controller: Controller, models: list[Model], claim_config: ServeConfig) -> Any:
    """Version 3 is deployed and serves."""
    controller.gateways |= {model.digest: model.gateway_url for model in models}
    with controller.reconciling():
        first = deploy(models[0], claim_config)
        assert first["registry_state"] == "serving"
        assert first["verified"]
        yield controller


def test_a_good_canary_takes_every_step_and_is_promoted(
    served: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    asked = models[1].predictor.asked
    answer = deploy(models[1], claim_config)
    assert (answer["registry_state"], answer["verified"]) == ("serving", True)
    assert states(claim_config) == {"3": "former", "4": "serving"}
    main, beside = served.service(), served.service("slicewise-canary")
    assert main is not None
    assert beside is not None
    assert digest_of(main) == digest_of(beside) == models[1].digest
    assert main["metadata"]["annotations"][STOP_ANNOTATION] == "false"
    assert beside["metadata"]["annotations"][STOP_ANNOTATION] == "true", "the candidate's pods are given back"
    # Two steps of four probes, two to warm up, and the smoke test's two: the candidate was really asked.
    assert models[1].predictor.asked - asked >= 12
    # The object that serves changed once, and only after the steps.
    digests = [item.digest for item in served.seen if item.name == "slicewise"]
    assert digests == sorted(digests, key=[models[0].digest, models[1].digest].index)
    entry = ledger(claim_config)["versions"][-1]
    assert entry["bundle_digest"] == models[1].digest
    assert entry["metrics"]["roc_auc"]["value"] == 0.9
    assert entry["data_digest"] == "d" * 64
    assert ledger(claim_config)["claim"] is None


@pytest.mark.parametrize("fault", ["error rate", "latency", "answers agree"])
def test_a_bad_canary_is_taken_back_by_itself(
    fault: str, served: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    candidate, config = models[1], claim_config
    if fault == "error rate":
        candidate.predictor.refuse_every = 3
    elif fault == "latency":
        candidate.predictor.pause_s = 1.0
        config = limited(config, max_latency_ratio=2.0)
    else:
        candidate = models[2]
    before = served.service()
    with pytest.raises(ServerError, match=f"the canary of {candidate.name} failed at 10 %: {fault}") as caught:
        deploy(candidate, config)
    assert caught.value.cure == "the former version serves as before"
    after, beside = served.service(), served.service("slicewise-canary")
    assert after is not None
    assert before is not None
    assert beside is not None
    assert after["spec"] == before["spec"], "the former version was not touched"
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert beside["metadata"]["annotations"][STOP_ANNOTATION] == "true"
    assert beside["metadata"]["annotations"][SHARE_ANNOTATION] == "0"
    assert states(config) == {"3": "serving", candidate.bundle.meta.model_version: "rejected"}
    assert fault in ledger(config)["versions"][-1]["reason"]
    assert ledger(config)["claim"] is None


def test_a_candidate_that_serves_badly_after_its_promotion_is_put_back(
    served: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    # No canary: it takes the former one's place at once, and fails the smoke test there.
    config = limited(claim_config, steps=())
    models[1].predictor.refuse_every = 1
    before = served.service()
    with pytest.raises(ServerError, match="/classify answered 503"):
        deploy(models[1], config)
    after = served.service()
    assert after is not None
    assert before is not None
    assert after["spec"] == before["spec"]
    assert digest_of(after) == models[0].digest
    assert states(config) == {"3": "serving", "4": "rejected"}


def test_the_same_version_again_with_settings_that_fail_stays_served(
    served: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    before = served.service()
    models[0].predictor.refuse_every = 1
    with pytest.raises(ServerError, match="/classify answered 503"):
        deploy(models[0], claim_config.model_copy(update={"workers": 3}))
    after = served.service()
    assert after is not None
    assert before is not None
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"][STOP_ANNOTATION] == "false"
    assert states(claim_config) == {"3": "serving"}


def test_a_first_model_that_fails_leaves_nothing_running(
    controller: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    controller.gateways[models[0].digest] = models[1].gateway_url
    with controller.reconciling(), pytest.raises(ServerError, match="still serves bundle"):
        deploy(models[0], claim_config.model_copy(update={"timeout_s": 1}))
    service = controller.service()
    assert service is not None
    assert service["metadata"]["annotations"][STOP_ANNOTATION] == "true"
    assert states(claim_config) == {"3": "rejected"}


def test_a_canary_that_cannot_be_asked_is_refused(
    served: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    served.gateways[models[1].digest] = "http://127.0.0.1:9"
    with pytest.raises(
        ServerError, match="the canary cannot be measured: http://127.0.0.1:9 cannot be reached"
    ) as told:
        deploy(models[1], claim_config)
    assert "serve.canary.steps=[]" in told.value.cure
    assert states(claim_config) == {"3": "serving", "4": "rejected"}


def test_a_graph_s_weights_move_with_the_steps(
    served: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    place = (GROUP, "v1alpha1", served.namespace, "inferencegraphs")
    targets = (("slicewise", 100), ("slicewise-canary", 0))
    steps = [{"serviceName": name, "weight": weight} for name, weight in targets]
    graph = {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": "slicewise-split"},
        "spec": {"nodes": {"root": {"routerType": "Splitter", "steps": steps}}},
    }
    created = served.api.create_namespaced_custom_object(*place, graph)

    def weights() -> dict[str, int]:
        found = served.api.get_namespaced_custom_object(*place, "slicewise-split")
        return {step["serviceName"]: step["weight"] for step in found["spec"]["nodes"]["root"]["steps"]}

    deploy(models[1], limited(claim_config, promote=False))
    assert weights() == {"slicewise": 50, "slicewise-canary": 50}
    models[2].predictor.refuse_every = 2
    with pytest.raises(ServerError, match="error rate"):
        deploy(models[2], claim_config)
    assert weights() == {"slicewise": 100, "slicewise-canary": 0}
    # Created, 10 %, 50 %, 10 % of the next one, and back to none.
    final = served.api.get_namespaced_custom_object(*place, "slicewise-split")
    assert final["metadata"]["generation"] == created["metadata"]["generation"] + 4
    assert states(claim_config) == {"3": "serving", "4": "rejected", "5": "rejected"}


def test_the_deployer_s_role_allows_what_it_does() -> None:
    documents = yaml.safe_load_all((MANIFESTS / "base" / "rbac.yaml").read_text(encoding="utf-8"))
    rules = next(item for item in documents if item["kind"] == "Role")["rules"]
    allowed = {(kind, verb) for rule in rules for kind in rule["resources"] for verb in rule["verbs"]}
    needed = {("inferenceservices", verb) for verb in ("get", "create", "patch")}
    needed |= {("inferencegraphs", "get"), ("inferencegraphs", "patch"), ("pods", "list"), ("deployments", "list")}
    assert needed <= allowed
