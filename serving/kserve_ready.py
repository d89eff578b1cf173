"""Waiting for an InferenceService: its conditions, its pods, and then the service itself.

KServe says Ready while a gateway is restarting again and again, and while pods of the old model still answer.
So the pods are looked at, and the service is asked which bundle it serves.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from serving.kserve_cluster import Cluster
from serving.kserve_pods import Fault, find_fault, text_fault
from slicewise.config import ServeConfig
from slicewise.errors import ServerError

# A new pod downloads the model, starts the JVM and its workers: that takes several requests' time limits.
READY_FACTOR = 5
# A fault may heal while secrets and quotas are being made; one that stays so much of timeout_s does not.
FAULT_FACTOR = 0.25
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


# Asks what the status names: the address, and what is missing (None: it serves the bundle), and whether it was asked.
Ask = Callable[[Mapping[str, Any]], tuple[Ready | None, str]]


def wait_ready(cluster: Cluster, generation: int, digest: str, ask: Ask | None = None) -> Ready:
    """Wait until this generation is ready and serves this bundle.

    Args:
        cluster: The InferenceService.
        generation: The generation that must have been observed.
        digest: The bundle's digest.
        ask: Asks the service itself; the gateway by default.

    Raises:
        ServerError: A fault that stays, or time ran out; says what was missing.
    """
    config = cluster.config
    ask = ask or (lambda status: ask_gateway(status, digest))
    deadline = time.monotonic() + READY_FACTOR * config.timeout_s
    told, faulty = "", _Lasting(FAULT_FACTOR * config.timeout_s)
    while True:
        status = _status(cluster.read() or {}, generation)
        missing = _missing(status)
        fault = find_fault(cluster, digest) or text_fault(missing, config.namespace)
        faulty.note(fault)
        if not missing and fault is None:
            ready, missing = ask(status)
            if ready:
                return ready
        missing = fault.message if fault else missing
        if missing != told:
            log.info("waiting for InferenceService %s: %s", config.model_name, missing)
            told = missing
        if time.monotonic() > deadline:
            raise _too_late(missing, config)
        time.sleep(POLL_S)


class _Lasting:
    """Raises for a fault that does not go away."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since: float | None = None

    def note(self, fault: Fault | None) -> None:
        """One look.

        Raises:
            ServerError: There was a fault at every look for too long.
        """
        if fault is None:
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self._patience_s:
            raise ServerError(fault.message, fault.cure)


def _status(service: Mapping[str, Any], generation: int) -> Mapping[str, Any]:
    """The status, or nothing while it still tells of an older generation."""
    status: Mapping[str, Any] = service.get("status") or {}
    return status if int(status.get("observedGeneration") or 0) >= generation else {}


def _missing(status: Mapping[str, Any]) -> str:
    """What is not ready yet; empty when everything is.

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
    return "" if "Ready" in conditions else "no condition Ready yet"


def in_cluster() -> bool:
    """Whether this process runs in a pod."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def address_of(service: Mapping[str, Any] | None) -> str:
    """Where an InferenceService answers: the cluster's own address inside a pod, else the one from outside."""
    status = (service or {}).get("status") or {}
    inner = str((status.get("address") or {}).get("url") or "")
    outer = str(status.get("url") or "")
    return (inner or outer if in_cluster() else outer or inner).rstrip("/")


def ask_gateway(status: Mapping[str, Any], digest: str) -> tuple[Ready | None, str]:
    """Ask the gateway which bundle is served.

    From outside the cluster the address may lead nowhere: then KServe's word must do, and the answer is not verified.
    """
    address = address_of({"status": status})
    if not address:
        return None, "no URL yet"
    try:
        response = httpx.get(f"{address}/model/info", timeout=PROBE_S)
        served = str(response.json().get("digest", "")) if response.is_success else ""
    except httpx.ConnectError as error:
        if in_cluster():
            return None, f"{address} does not answer"
        log.warning("%s cannot be reached from here (%s): taking KServe's word that it is ready", address, error)
        return Ready(address, verified=False), ""
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        return None, f"{address} gives no proper answer ({error})"
    if not response.is_success:
        return None, f"{address} answers {response.status_code}"
    if served != digest:
        return None, f"{address} still serves bundle {served[:12]}"
    return Ready(address, verified=True), ""


def _too_late(missing: str, config: ServeConfig) -> ServerError:
    waited = READY_FACTOR * config.timeout_s
    where = f"kubectl -n {config.namespace}"
    return ServerError(
        f"InferenceService {config.model_name} was not ready after {waited} s: {missing}",
        f"see '{where} describe inferenceservice {config.model_name}' and its pods, or raise serve.timeout_s",
    )
