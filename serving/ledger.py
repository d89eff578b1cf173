"""What the registry of one model holds, as plain frozen records."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from slicewise.provenance import ROOT, code_version

if TYPE_CHECKING:
    # It imports torch, which whoever only looks into the registry need not wait for.
    from slicewise.inference.bundle import Bundle

RUN_VARIABLES = ("SLICEWISE_RUN_ID", "KFP_RUN_ID")

State = Literal["candidate", "serving", "former", "rejected"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Version(_Record):
    """One deployed version: digests, metrics, and where it comes from.

    Attributes:
        name: ``<model_version>-<digest12>``.
        reason: Why it was rejected.
        run_id: The pipeline run that made it; empty outside a pipeline.
        data_digest: Of the data it was trained on.
        code: Commit and whether there were changes on top, of the code that deployed it.
    """

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
    """Who is deploying, since when, and until when the claim holds unless it is renewed.

    Attributes:
        token: Tells this deployment from every other.
        holder: ``process N on HOST``, for people.
        since: When it began.
        until: Seconds since the epoch.
    """

    token: str
    holder: str
    since: str
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

    def named(self, name: str) -> Version:
        """The version of a name that is there."""
        return next(item for item in self.versions if item.name == name)

    def added(self, version: Version) -> Ledger:
        """With a candidate; one of its name is replaced, and one that waited has waited in vain."""
        ledger = self
        for item in self.versions:
            if item.state == "candidate" and item.name != version.name:
                ledger = ledger.moved(item.name, "rejected", f"{version.name} took its place")
        rest = tuple(item for item in ledger.versions if item.name != version.name)
        return ledger.model_copy(update={"versions": (*rest, version)}).moved(version.name, "candidate")

    def moved(self, name: str, state: State, reason: str = "") -> Ledger:
        """With one version in another state; the one that served becomes the former one."""
        chosen = [item for item in self.versions if item.name == name]
        rest = [item for item in self.versions if item.name != name]
        if state == "serving":
            rest = [item.model_copy(update={"state": "former"}) if item.state == "serving" else item for item in rest]
        changed = [item.model_copy(update={"state": state, "reason": reason}) for item in chosen]
        event = Event(at=now(), version=name, state=state, reason=reason)
        return self.model_copy(update={"versions": (*rest, *changed), "events": (*self.events, event)})


def version_name(version: str, digest: str) -> str:
    """How a version is called in the storage and in the registry."""
    return f"{version}-{digest[:12]}"


def describe_version(bundle: Bundle, storage_uri: str) -> Version:
    """What the registry keeps of a bundle."""
    meta = bundle.meta
    return Version(
        name=version_name(meta.model_version, bundle.digest),
        model_version=meta.model_version,
        bundle_digest=bundle.digest,
        storage_uri=storage_uri,
        registered=now(),
        metrics=meta.metrics,
        run_id=next((os.environ[name] for name in RUN_VARIABLES if os.environ.get(name)), ""),
        data_digest=meta.data_digest,
        code=code_version(ROOT),
        slicewise_version=meta.slicewise_version,
    )


def holder_name() -> str:
    """This process, for people."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
