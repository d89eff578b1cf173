"""Every version that was ever deployed: one JSON object beside the models, written by compare-and-swap."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.storage import Storage
from serving.upload import version_name
from slicewise.errors import ServerError
from slicewise.inference.bundle import Bundle
from slicewise.provenance import ROOT, code_version

# Longer than any deployment waits: a claim that is older belongs to a process that died.
CLAIM_S = 3 * 3600.0
TRIES = 20
RUN_VARIABLES = ("SLICEWISE_RUN_ID", "KFP_RUN_ID")

State = Literal["candidate", "serving", "former", "rejected"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Version(_Record):
    """One deployed version: digests, metrics, and where it comes from."""

    name: str
    model_version: str
    bundle_digest: str
    storage_uri: str
    state: State = "candidate"
    reason: str = ""
    registered: str
    metrics: dict[str, Any] = {}
    run_id: str = ""
    data_digest: str = ""
    code: dict[str, Any] | None = None
    slicewise_version: str = ""


class Event(_Record):
    """What happened to a version, and when."""

    at: str
    version: str
    state: State
    reason: str = ""


class Claim(_Record):
    """Who is deploying, until when (seconds since the epoch)."""

    token: str
    until: float


class Ledger(_Record):
    """The whole registry of one model."""

    format: Literal["slicewise-registry"] = "slicewise-registry"
    model_name: str
    versions: tuple[Version, ...] = ()
    events: tuple[Event, ...] = ()
    claim: Claim | None = None

    def in_state(self, state: State) -> Version | None:
        """The latest version in a state."""
        return next((item for item in reversed(self.versions) if item.state == state), None)

    def moved(self, name: str, state: State, reason: str = "") -> Ledger:
        """With one version in another state; the one that served becomes the former one."""
        chosen = [item for item in self.versions if item.name == name]
        rest = [item for item in self.versions if item.name != name]
        if state == "serving":
            rest = [item.model_copy(update={"state": "former"}) if item.state == "serving" else item for item in rest]
        changed = [item.model_copy(update={"state": state, "reason": reason}) for item in chosen]
        event = Event(at=_now(), version=name, state=state, reason=reason)
        return self.model_copy(update={"versions": (*rest, *changed), "events": (*self.events, event)})


class Registry:
    """The registry of one model in a storage."""

    def __init__(self, storage: Storage, model_name: str) -> None:
        self._storage = storage
        self._model_name = model_name
        self._name = f"registry/{model_name}.json"

    def read(self) -> Ledger:
        """The registry as it is.

        Raises:
            ServerError: The object is damaged, or the storage cannot be reached.
        """
        return self._read()[0]

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Be the only one who deploys this model.

        Raises:
            ServerError: Somebody else is at it.
        """
        token = uuid.uuid4().hex
        self._change(lambda ledger: self._claimed(ledger, token))
        try:
            yield
        finally:
            self._change(lambda ledger: _released(ledger, token))

    def add(self, version: Version) -> None:
        """Record a candidate; one of the same name is replaced."""

        def added(ledger: Ledger) -> Ledger:
            rest = tuple(item for item in ledger.versions if item.name != version.name)
            return ledger.model_copy(update={"versions": (*rest, version)}).moved(version.name, "candidate")

        self._change(added)

    def move(self, name: str, state: State, reason: str = "") -> None:
        """Record what became of a version."""
        self._change(lambda ledger: ledger.moved(name, state, reason))

    def _claimed(self, ledger: Ledger, token: str) -> Ledger:
        if ledger.claim and ledger.claim.until > time.time():
            until = datetime.fromtimestamp(ledger.claim.until, UTC).isoformat(timespec="minutes")
            raise ServerError(
                f"another deployment of {self._model_name} is running",
                f"wait for it; if it died, its claim ends at {until}",
            )
        return ledger.model_copy(update={"claim": Claim(token=token, until=time.time() + CLAIM_S)})

    def _read(self) -> tuple[Ledger, str | None]:
        found = self._storage.read(self._name)
        if found is None:
            return Ledger(model_name=self._model_name), None
        try:
            return Ledger.model_validate_json(found[0]), found[1]
        except ValidationError as error:
            place = f"{self._storage.uri}/{self._name}"
            raise ServerError(f"{place} is no registry", "restore it from a backup, or move it away") from error

    def _change(self, change: Callable[[Ledger], Ledger]) -> None:
        for _ in range(TRIES):
            ledger, tag = self._read()
            body = json.dumps(change(ledger).model_dump(mode="json"), indent=2, allow_nan=False).encode()
            if self._storage.swap(self._name, body, tag):
                return
        raise ServerError(f"the registry of {self._model_name} is written by many at once", "deploy again")


def describe_version(bundle: Bundle, storage_uri: str) -> Version:
    """What the registry keeps of a bundle."""
    meta = bundle.meta
    return Version(
        name=version_name(meta.model_version, bundle.digest),
        model_version=meta.model_version,
        bundle_digest=bundle.digest,
        storage_uri=storage_uri,
        registered=_now(),
        metrics=meta.metrics,
        run_id=next((os.environ[name] for name in RUN_VARIABLES if os.environ.get(name)), ""),
        data_digest=meta.data_digest,
        code=code_version(ROOT),
        slicewise_version=meta.slicewise_version,
    )


def _released(ledger: Ledger, token: str) -> Ledger:
    mine = ledger.claim is not None and ledger.claim.token == token
    return ledger.model_copy(update={"claim": None}) if mine else ledger


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
