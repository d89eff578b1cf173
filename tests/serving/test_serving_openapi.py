"""The OpenAPI document against the running gateway: schemathesis sends what it allows, and what it forbids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hostile_files
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.state import StackState

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
IMAGES = ("/classify", "/classify/gradcam", "/segment", "/segment/uncertainty", "/predict_multitask")
MANY = ("/classify/batch", "/segment/batch", "/patient/analyze_stack", "/predict/async")
JOBS = ("/jobs/{job_id}", "/jobs/{job_id}/result", "/jobs/{job_id}/mask.nii.gz", "/jobs/{job_id}/seg.dcm")
OPERATIONS = [
    *(("GET", path) for path in ("/healthz", "/model/info", *JOBS)),
    ("DELETE", "/jobs/{job_id}"),
    *(("POST", path) for path in (*IMAGES, *MANY)),
]
# Seconds, and the same cases every time.
BOUNDED = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture(scope="module")
def document(stack: StackState, session: requests.Session) -> Any:
    return schemathesis.openapi.from_dict(session.get(f"{stack.gateway_url}/openapi.json", timeout=10).json())


def test_every_operation_is_tried(document: Any) -> None:
    told = {(one.ok().method.upper(), one.ok().path) for one in document.get_all_operations()}
    assert told == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_is_allowed_is_answered_as_told(
    method: str, path: str, document: Any, stack: StackState, session: requests.Session
) -> None:
    @BOUNDED
    @given(case=document[path][method].as_strategy())
    def tried(case: Case) -> None:
        response = case.call(base_url=stack.gateway_url, session=session, timeout=60)
        case.validate_response(response, checks=CHECKS)

    tried()


@pytest.mark.parametrize("path", [*IMAGES, *MANY])
def test_what_is_forbidden_is_refused_as_told(
    path: str, document: Any, stack: StackState, session: requests.Session
) -> None:
    # A batch answers some wrong parameters at each of its images.
    checks = CHECKS if path.endswith("/batch") else [*CHECKS, negative_data_rejection]

    @BOUNDED
    @given(case=document[path]["POST"].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def tried(case: Case) -> None:
        response = case.call(base_url=stack.gateway_url, session=session, timeout=60)
        case.validate_response(response, checks=checks)

    tried()


@pytest.mark.parametrize("path", [*IMAGES, *MANY])
def test_a_good_image_with_any_allowed_parameters(
    path: str, document: Any, stack: StackState, session: requests.Session
) -> None:
    field = "image" if path in IMAGES else "images"
    rows = hostile_files.slice_image().tolist()
    statuses = set()

    @BOUNDED
    @given(query=document[path]["POST"].as_strategy().map(lambda case: case.query), counted=st.integers(1, 2))
    def tried(query: dict[str, Any], counted: int) -> None:
        body = {"image": rows} if field == "image" else {"images": [rows] * counted}
        case = document[path]["POST"].Case(query=query, body=body, media_type="application/json")
        response = case.call(base_url=stack.gateway_url, session=session, timeout=60)
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)

    tried()
    assert statuses & {200, 202}, statuses
