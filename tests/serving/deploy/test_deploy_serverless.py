"""The canary with Knative: the share of one InferenceService's traffic, as the real API server keeps it."""

from __future__ import annotations

from typing import Any

import pytest
from api_servers import Controller
from deploying import deploy, limited, states
from models import Model

from serving.deploy_state import deployment_status, promote_candidate, roll_back
from serving.kserve_cluster import digest_of
from serving.kserve_manifest import CANARY_PERCENT, FORMER_ANNOTATION, MODE_ANNOTATION, TAGS_ANNOTATION
from slicewise.config import ServeConfig
from slicewise.errors import ServerError


@pytest.fixture
def config(claim_config: ServeConfig) -> ServeConfig:
    return claim_config.model_copy(update={"deployment_mode": "serverless"})


@pytest.fixture
def served(controller: Controller, models: list[Model], config: ServeConfig) -> Any:
    """Version 3 is deployed and serves."""
    controller.gateways |= {model.digest: model.gateway_url for model in models}
    controller.predictors |= {model.digest: model.predictor.url for model in models}
    with controller.reconciling():
        assert deploy(models[0], config)["registry_state"] == "serving"
        yield controller


def service(served: Controller) -> dict[str, Any]:
    found = served.service()
    assert found is not None
    return found


def test_the_manifest_is_knative_s(served: Controller) -> None:
    found = service(served)
    assert found["metadata"]["annotations"][MODE_ANNOTATION] == "Knative"
    assert found["metadata"]["annotations"][TAGS_ANNOTATION] == "true"
    assert len(found["spec"]["transformer"]["containers"][0]["ports"]) == 1, "Knative takes one port"
    assert CANARY_PERCENT not in found["spec"]["predictor"]


def test_a_good_canary_gets_more_and_more_of_the_traffic(
    served: Controller, models: list[Model], config: ServeConfig
) -> None:
    asked = [model.predictor.asked for model in models[:2]]
    assert deploy(models[1], config)["registry_state"] == "serving"
    assert served.shares() == [None, 0, 10, 50, None]
    assert served.service("slicewise-canary") is None, "there is one object only"
    assert digest_of(service(served)) == models[1].digest
    assert FORMER_ANNOTATION not in service(served)["metadata"]["annotations"]
    assert states(config) == {"3": "former", "4": "serving"}
    for model, before in zip(models[:2], asked, strict=True):
        assert model.predictor.asked - before >= 10, "both revisions were asked at addresses of their own"


def test_a_bad_canary_loses_its_traffic_at_once(served: Controller, models: list[Model], config: ServeConfig) -> None:
    before = service(served)
    models[1].predictor.refuse_every = 3
    with pytest.raises(ServerError, match="failed at 10 %: error rate"):
        deploy(models[1], config)
    assert states(config) == {"3": "serving", "4": "rejected"}
    after = service(served)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert served.shares() == [None, 0, 10, 0, None]
    # The candidate never was the newest revision with an open share: that would have given it everything.
    assert all(item.percent is not None for item in served.seen if item.digest == models[1].digest)


def test_a_candidate_waits_is_promoted_and_rolled_back(
    served: Controller, models: list[Model], config: ServeConfig
) -> None:
    waiting = limited(config, promote=False)
    assert deploy(models[1], waiting)["registry_state"] == "candidate"
    assert service(served)["spec"]["predictor"][CANARY_PERCENT] == 50
    told = deployment_status(waiting)
    assert (told["serving"], told["candidate"]) == (models[0].name, models[1].name)
    assert told["cluster"]["canary_percent"] == 50
    assert promote_candidate(waiting)["serving"] == models[1].name
    assert CANARY_PERCENT not in service(served)["spec"]["predictor"]
    assert states(config) == {"3": "former", "4": "serving"}
    # Another waits, and a later process drops it: the object is as it was before.
    before = service(served)["spec"]
    deploy(models[2], limited(waiting, min_agreement=0.0))
    assert roll_back(waiting)["dropped"] == models[2].name
    assert service(served)["spec"] == before
    assert states(config) == {"3": "former", "4": "serving", "5": "rejected"}


def test_a_former_revision_without_an_address_is_named(
    served: Controller, models: list[Model], config: ServeConfig
) -> None:
    served.predictors[models[0].digest] = ""
    with pytest.raises(ServerError, match=r"no address for the former revision \(tag prev\)"):
        deploy(models[1], config)
    assert states(config) == {"3": "serving", "4": "rejected"}
