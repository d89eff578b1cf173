"""A canary with Knative: two revisions of one InferenceService, between which KServe splits all traffic.

``spec.predictor.canaryTrafficPercent`` is the candidate's share. Every client's requests to the gateway are split
behind it. The probes go to the addresses that Knative gives the two revisions of the predictor (tags ``latest`` and
``prev``), so that it is known whom they ask.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from serving.askers import predictor_asker, served_digest
from serving.canary import Asker
from serving.canary_beside import unreachable
from serving.kserve_cluster import Cluster, difference, digest_of
from serving.kserve_manifest import CANARY_PERCENT, DIGEST_ANNOTATION, FORMER_ANNOTATION, TAGS_ANNOTATION
from serving.kserve_ready import POLL_S, Ready, wait_ready
from serving.ledger import Version
from slicewise.errors import ServerError, SliceWiseError

NEW_TAG, FORMER_TAG = "latest", "prev"

log = logging.getLogger(__name__)


class Revision:
    """The candidate as the newest revision of the InferenceService that serves.

    Args:
        cluster: That InferenceService.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def start(self, manifest: Mapping[str, Any], version: Version) -> Ready:
        """Make the revision, with none of the traffic.

        Raises:
            ServerError: It does not get ready, or cannot be asked from here.
        """
        before = self._cluster.read() or {}
        wanted = deepcopy(dict(manifest))
        wanted["spec"]["predictor"][CANARY_PERCENT] = 0
        wanted["metadata"]["annotations"] |= {TAGS_ANNOTATION: "true", FORMER_ANNOTATION: _remembered(before)}
        generation = self._cluster.apply(wanted)
        return wait_ready(
            self._cluster, generation, version.bundle_digest, lambda status: self._ask(status, version.bundle_digest)
        )

    @contextmanager
    def askers(self, ready: Ready) -> Iterator[tuple[Asker, Asker]]:
        """Those who ask the candidate's and the former version's predictor.

        Raises:
            ServerError: Knative gives the former revision no address.
        """
        config = self._cluster.config
        former = _tagged((self._cluster.read() or {}).get("status") or {}, FORMER_TAG)
        if not former:
            cure = f"see 'kubectl -n {config.namespace} get inferenceservice {config.model_name} -o yaml'"
            raise ServerError(f"no address for the former revision (tag {FORMER_TAG}) in the status", cure)
        with predictor_asker(ready.url, config) as new, predictor_asker(former, config) as old:
            yield new, old

    def share(self, percent: int) -> None:
        """Give the candidate so many per cent of all traffic."""
        self._cluster.patch({"spec": {"predictor": {CANARY_PERCENT: percent}}})

    def drop(self, digest: str) -> None:
        """All traffic back to the former revision at once; then its settings, with the candidate's pods gone.

        The share stays 0 until Knative has made a revision of the former settings: without it, the newest ready
        revision, which is the candidate, would get everything.
        """
        found = self._cluster.read()
        if found is None:
            return
        annotations = found["metadata"].get("annotations") or {}
        former = json.loads(annotations.get(FORMER_ANNOTATION) or "null")
        if digest_of(found) != digest:
            return
        if former is None:
            # Promoted, or put back already.
            return
        self.share(0)
        spec = deepcopy(former["spec"])
        spec["predictor"][CANARY_PERCENT] = 0
        body = {
            "metadata": {"annotations": {DIGEST_ANNOTATION: former["digest"], FORMER_ANNOTATION: None}},
            "spec": difference(found["spec"], spec),
        }
        generation = self._cluster.patch(body)
        if self._settled(generation):
            self._cluster.patch({"spec": {"predictor": {CANARY_PERCENT: None}}})
        else:
            log.warning("the former settings are not ready yet: %s stays 0 until the next deployment", CANARY_PERCENT)

    def _ask(self, status: Mapping[str, Any], digest: str) -> tuple[Ready | None, str]:
        predictor = _predictor(status)
        created, ready = predictor.get("latestCreatedRevision"), predictor.get("latestReadyRevision")
        if not created or created != ready:
            return None, f"revision {created or '(none yet)'} is not ready"
        url = _tagged(status, NEW_TAG)
        if not url:
            return None, f"no address for revision {created} (tag {NEW_TAG}) yet"
        try:
            served = served_digest(url, self._cluster.config)
        except SliceWiseError as error:
            log.info("%s: %s", url, error)
            return None, unreachable(url).message
        return (Ready(url, verified=True), "") if served == digest else (None, f"{url} serves bundle {served[:12]}")

    def _settled(self, generation: int) -> bool:
        """Wait until the newest revision, of the former settings, is ready."""

        def ready(service: Mapping[str, Any]) -> bool:
            status = service.get("status") or {}
            predictor = _predictor(status)
            observed = int(status.get("observedGeneration") or 0) >= generation
            created = predictor.get("latestCreatedRevision")
            return observed and bool(created) and created == predictor.get("latestReadyRevision")

        return self._wait(ready)

    def _wait(self, condition: Callable[[Mapping[str, Any]], bool]) -> bool:
        deadline = time.monotonic() + self._cluster.config.timeout_s
        while not condition(self._cluster.read() or {}):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True


def _remembered(service: Mapping[str, Any]) -> str:
    """The object's own settings; those of the version before, where a candidate was left behind."""
    annotations = service["metadata"].get("annotations") or {}
    if left := annotations.get(FORMER_ANNOTATION):
        return str(left)
    return json.dumps({"digest": digest_of(service), "spec": service["spec"]})


def _predictor(status: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (status.get("components") or {}).get("predictor") or {}
    return found


def _tagged(status: Mapping[str, Any], tag: str) -> str:
    """The address of the revision with a tag; empty while there is none."""
    traffic = _predictor(status).get("traffic") or []
    return next((str(entry.get("url") or "") for entry in traffic if entry.get("tag") == tag), "").rstrip("/")
