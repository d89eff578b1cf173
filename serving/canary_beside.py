"""A canary with plain Deployments: a second InferenceService, and an InferenceGraph's weights where there is one.

KServe splits no traffic between InferenceServices there. Overlay ``canary`` has an InferenceGraph that does, for
those who ask at its address; without it only the probes reach the candidate.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from serving.askers import gateway_asker
from serving.canary import Asker
from serving.kserve_cluster import ASK_S, GROUP, Cluster, digest_of
from serving.kserve_errors import cluster_errors
from serving.kserve_ready import Ready, address_of, wait_ready
from serving.ledger import Version
from slicewise.errors import ServerError

SHARE_ANNOTATION = "slicewise.dev/canary-percent"
GONE = (403, 404)

log = logging.getLogger(__name__)


class Beside:
    """The candidate ``<name>-canary`` beside ``<name>``.

    Args:
        cluster: The InferenceService that serves.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._serving = cluster
        self._beside = cluster.renamed(f"{cluster.config.model_name}-canary")

    def start(self, manifest: Mapping[str, Any], version: Version) -> Ready:
        """Start the candidate, without traffic.

        Raises:
            ServerError: It does not get ready, or cannot be asked from here.
        """
        beside = self._beside
        metadata = manifest["metadata"] | {"name": beside.config.model_name}
        metadata["labels"] = metadata["labels"] | {"app.kubernetes.io/name": beside.config.model_name}
        stale = beside.read()
        if stale is not None and digest_of(stale) != version.bundle_digest:
            log.info("%s still holds bundle %s: replacing it", beside.config.model_name, digest_of(stale)[:12])
        generation = beside.apply({**manifest, "metadata": metadata})
        ready = wait_ready(beside, generation, version.bundle_digest)
        if not ready.verified:
            raise unreachable(ready.url)
        return ready

    @contextmanager
    def askers(self, ready: Ready) -> Iterator[tuple[Asker, Asker]]:
        """Those who ask the candidate and the former version."""
        config = self._serving.config
        former = address_of(self._serving.read())
        with gateway_asker(ready.url, config) as new, gateway_asker(former, config) as old:
            yield new, old

    def share(self, percent: int) -> None:
        """Give the candidate so many per cent of the graph's traffic."""
        if not self._split(percent) and percent:
            log.info("there is no InferenceGraph %s: only probes reach the candidate", self._graph)
        self._beside.annotate({SHARE_ANNOTATION: str(percent)})

    def drop(self, digest: str) -> None:
        """Take the traffic away from the candidate, then its pods."""
        self._split(0)
        found = self._beside.read()
        if found is not None and digest_of(found) == digest:
            self._beside.annotate({SHARE_ANNOTATION: "0"})
            self._beside.stop()

    @property
    def _graph(self) -> str:
        return f"{self._serving.config.model_name}-split"

    def _split(self, percent: int) -> bool:
        """Set the weights; False where there is no graph, or none of ours to change."""
        from kubernetes.client import ApiException  # type: ignore[import-untyped]

        config, api = self._serving.config, self._serving.client.api_instance
        place = (GROUP, "v1alpha1", config.namespace, "inferencegraphs", self._graph)
        shares = {config.model_name: 100 - percent, self._beside.config.model_name: percent}
        with cluster_errors(config):
            try:
                graph = api.get_namespaced_custom_object(*place, _request_timeout=ASK_S)
                root = graph["spec"]["nodes"]["root"]
                steps = [step | {"weight": shares[step["serviceName"]]} for step in root["steps"]]
                patch = {"spec": {"nodes": {"root": {"steps": steps}}}}
                api.patch_namespaced_custom_object(*place, patch, _request_timeout=ASK_S)
            except ApiException as error:
                if error.status not in GONE:
                    raise
                return False
            except KeyError as error:
                log.warning("InferenceGraph %s does not split between these two: no %s", self._graph, error)
                return False
        return True


def unreachable(url: str) -> ServerError:
    """The refusal of a canary that cannot be asked."""
    return ServerError(
        f"the canary cannot be measured: {url} cannot be reached from here",
        "deploy from inside the cluster (the pipeline's deploy stage does), make the address resolve here, or go "
        "without a canary: --set serve.canary.steps=[]",
    )
