"""What can go wrong between us and a cluster, with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from slicewise.config import ServeConfig
from slicewise.errors import ServerError


def is_object_missing(error: Any) -> bool:
    """Whether the object is missing; a 404 without details says that the kind itself is unknown there."""
    try:
        told = json.loads(error.body)
    except (TypeError, ValueError):
        return False
    return isinstance(told, dict) and bool((told.get("details") or {}).get("name"))


@contextmanager
def cluster_errors(config: ServeConfig) -> Iterator[None]:
    """The Kubernetes client's errors as ours; the SDK wraps them in RuntimeError."""
    from kubernetes.client import ApiException  # type: ignore[import-untyped]
    from kubernetes.config import ConfigException  # type: ignore[import-untyped]
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ConfigException as error:
        raise ServerError(f"no cluster is configured: {error}", "set KUBECONFIG, or run inside a pod") from error
    except HTTPError as error:
        reason = str(getattr(error, "reason", None) or error)
        raise ServerError(f"the cluster cannot be reached: {reason}", "check KUBECONFIG and the network") from error
    except (ApiException, RuntimeError) as error:
        cause = error if isinstance(error, ApiException) else error.__context__
        if not isinstance(cause, ApiException):
            raise
        raise _refused(cause, config) from error


def _refused(error: Any, config: ServeConfig) -> ServerError:
    place = f"InferenceService {config.model_name} in namespace {config.namespace}"
    try:
        told = str(json.loads(error.body).get("message") or error.reason)
    except (TypeError, ValueError, AttributeError):
        told = str(error.reason)
    if error.status == 403 and "exceeded quota" in told:
        return ServerError(f"the quota of namespace {config.namespace} is used up: {told}", "free or raise the quota")
    if error.status == 401:
        cure = "log in to the cluster again, or renew the token in KUBECONFIG; a pod needs its service account"
        return ServerError(f"the cluster does not accept the credentials for {place}: {told}", cure)
    if error.status == 403:
        cure = "bind the Role slicewise-deployer of manifests/base to your account"
        return ServerError(f"no permission for {place}: {told}", cure)
    if error.status == 404:
        cure = "install KServe 0.16 or newer, and make the namespace"
        return ServerError(f"the cluster knows no InferenceService, or no namespace {config.namespace}: {told}", cure)
    if error.status == 409:
        return ServerError(f"{place} was changed by somebody else meanwhile", "deploy again")
    return ServerError(f"the cluster refused {place}: {told}", "correct what it names, then deploy again")
