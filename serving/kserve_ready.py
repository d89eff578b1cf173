"""Waiting for an InferenceService: its conditions first, then the service itself.

KServe says Ready while a gateway is restarting again and again, and while pods of the old model still answer.
So the service is asked which bundle it serves.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from slicewise.config import ServeConfig
from slicewise.errors import ServerError

# A new pod downloads the model, starts the JVM and its workers: that takes several requests' time limits.
READY_FACTOR = 5
POLL_S = 1.0
PROBE_S = 15.0
FAILED = frozenset({"BlockedByFailedLoad", "InvalidSpec"})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """A service that is ready.

    Attributes:
        url: Where it answers.
        verified: Whether it was asked and answered with the new bundle's digest.
    """

    url: str
    verified: bool


def wait_ready(look: Callable[[], Mapping[str, Any]], generation: int, digest: str, config: ServeConfig) -> Ready:
    """Wait until this generation is ready and serves this bundle.

    Args:
        look: Reads the InferenceService.
        generation: The generation that must have been observed.
        digest: The bundle's digest.
        config: ``timeout_s``, of which ``READY_FACTOR`` times are waited at most.

    Raises:
        ServerError: The model failed to load, or time ran out; says what was missing.
    """
    deadline = time.monotonic() + READY_FACTOR * config.timeout_s
    told = ""
    while True:
        status = _status(look(), generation)
        missing = _missing(status)
        if missing is None and (address := _address(status)):
            verified, missing = _ask(address, digest)
            if missing is None:
                return Ready(address, verified)
        missing = missing or "no URL yet"
        if missing != told:
            log.info("waiting for InferenceService %s: %s", config.model_name, missing)
            told = missing
        if time.monotonic() > deadline:
            raise _too_late(missing, config)
        time.sleep(POLL_S)


def _status(service: Mapping[str, Any], generation: int) -> Mapping[str, Any]:
    """The status, or nothing while it still tells of an older generation."""
    status: Mapping[str, Any] = service.get("status") or {}
    return status if int(status.get("observedGeneration") or 0) >= generation else {}


def _missing(status: Mapping[str, Any]) -> str | None:
    """What is not ready yet; None when everything is.

    Raises:
        ServerError: It will never be.
    """
    model = status.get("modelStatus") or {}
    if model.get("transitionStatus") in FAILED:
        failure = model.get("lastFailureInfo") or {}
        reason = failure.get("message") or failure.get("reason") or model["transitionStatus"]
        raise ServerError(f"the model does not load: {reason}", "see the predictor pod's log")
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
    if not conditions:
        return "not looked at by KServe yet"
    for name in sorted(conditions, key=lambda key: key == "Ready"):
        entry = conditions[name]
        if name.endswith("Ready") and entry["status"] != "True" and entry.get("severity") != "Info":
            detail = entry.get("message") or entry.get("reason") or ""
            return f"{name} is {entry['status']}{f' ({detail})' if detail else ''}"
    return None if "Ready" in conditions else "no condition Ready yet"


def _in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ


def _address(status: Mapping[str, Any]) -> str:
    """The cluster's own address inside a pod, else the one from outside."""
    inner = str((status.get("address") or {}).get("url") or "")
    outer = str(status.get("url") or "")
    return (inner or outer if _in_cluster() else outer or inner).rstrip("/")


def _ask(address: str, digest: str) -> tuple[bool, str | None]:
    """Ask which bundle is served.

    Returns:
        Whether it is ours, and what is missing. From outside the cluster the address may lead nowhere: then
        neither is known, and KServe's word must do.
    """
    try:
        response = httpx.get(f"{address}/model/info", timeout=PROBE_S)
        served = response.json().get("digest", "") if response.is_success else ""
    except httpx.ConnectError as error:
        if _in_cluster():
            return False, f"{address} does not answer"
        log.warning("%s cannot be reached from here (%s): taking KServe's word that it is ready", address, error)
        return False, None
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        return False, f"{address} gives no proper answer ({error})"
    if not response.is_success:
        return False, f"{address} answers {response.status_code}"
    return (True, None) if served == digest else (False, f"{address} still serves bundle {served[:12]}")


def _too_late(missing: str, config: ServeConfig) -> ServerError:
    waited = READY_FACTOR * config.timeout_s
    where = f"kubectl -n {config.namespace}"
    return ServerError(
        f"InferenceService {config.model_name} was not ready after {waited} s: {missing}",
        f"see '{where} describe inferenceservice {config.model_name}' and its pods, or raise serve.timeout_s",
    )
