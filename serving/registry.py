"""Every version that was ever deployed: one JSON object beside the models, written by compare-and-swap.

One deployment of a model runs at a time: it holds a claim, which it renews while it lives. The claim of a process
that died lapses within minutes, or is taken away at once by ``slicewise deploy --unlock``.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from serving.ledger import Claim, Ledger, State, Version, holder_name, now
from serving.storage import Storage
from slicewise.errors import ServerError

CLAIM_S = 300.0
RENEW_S = 60.0
TRIES = 20
PAUSE_S = 0.05
UNLOCK = "slicewise deploy --target kserve --unlock"

Mirror = Callable[[Version], None]

log = logging.getLogger(__name__)


class Registry:
    """The registry of one model in a storage.

    Args:
        storage: Where the object lies.
        model_name: The model.
        mirror: Told of every version and of every change of its state, after it was written.
    """

    def __init__(self, storage: Storage, model_name: str, mirror: Mirror | None = None) -> None:
        self._storage = storage
        self._model_name = model_name
        self._name = f"registry/{model_name}.json"
        self._mirror = mirror
        self._token = ""

    def read(self) -> Ledger:
        """The registry as it is.

        Raises:
            ServerError: The object is damaged, or the storage cannot be reached.
        """
        return self._read()[0]

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Be the only one who deploys this model; renewed in the background for as long as it takes.

        Raises:
            ServerError: Somebody else is at it.
        """
        token = uuid.uuid4().hex
        self._change(lambda ledger: self._claimed(ledger, token))
        self._token, done = token, threading.Event()
        renewing = threading.Thread(target=self._renew, args=(done,), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            done.set()
            renewing.join()
            self._token = ""
            self._release(token)

    def unlock(self) -> Claim | None:
        """Take the claim away from whoever holds it; that deployment fails at its next step."""
        found: list[Claim | None] = []

        def freed(ledger: Ledger) -> Ledger:
            found.append(ledger.claim)
            return ledger.model_copy(update={"claim": None})

        self._change(freed)
        return found[-1]

    def add(self, version: Version) -> None:
        """Record a candidate; one of the same name is replaced."""
        self._recorded(version.name, lambda ledger: ledger.added(version))

    def move(self, name: str, state: State, reason: str = "") -> None:
        """Record what became of a version."""
        self._recorded(name, lambda ledger: ledger.moved(name, state, reason))

    def require_claim(self) -> None:
        """See that the claim was not taken away.

        Raises:
            ServerError: It was.
        """
        self._held(self.read())

    def _recorded(self, name: str, change: Callable[[Ledger], Ledger]) -> None:
        before = {item.name: item for item in self.read().versions}
        written = self._change(lambda ledger: change(self._held(ledger)))
        for item in written.versions if self._mirror else ():
            if self._mirror and (item.name == name or item != before.get(item.name)):
                self._mirror(item)

    def _held(self, ledger: Ledger) -> Ledger:
        if self._token and (ledger.claim is None or ledger.claim.token != self._token):
            raise ServerError(
                f"this deployment of {self._model_name} was unlocked, or taken for dead, by somebody else",
                "see 'slicewise deploy --target kserve --status', then deploy again if yours should serve",
            )
        return ledger

    def _claimed(self, ledger: Ledger, token: str) -> Ledger:
        held = ledger.claim
        if held and held.until > time.time():
            raise ServerError(
                f"another deployment of {self._model_name} is running: {held.holder}, since {held.since}",
                f"wait for it; if it died, its claim ends in {max(1, round(held.until - time.time()))} s, "
                f"or end it with '{UNLOCK}'",
            )
        claim = Claim(token=token, holder=holder_name(), since=now(), until=time.time() + CLAIM_S)
        return ledger.model_copy(update={"claim": claim})

    def _renew(self, done: threading.Event) -> None:
        while not done.wait(RENEW_S):
            try:
                self._change(lambda ledger: _renewed(self._held(ledger)))
            except ServerError as error:
                log.warning("the claim on %s was not renewed: %s", self._model_name, error)

    def _release(self, token: str) -> None:
        try:
            self._change(lambda ledger: _released(ledger, token))
        except ServerError as error:
            # Whatever went wrong before is the news; the claim lapses by itself.
            log.warning("the claim on %s was not given back: %s", self._model_name, error)

    def _read(self) -> tuple[Ledger, str | None]:
        found = self._storage.read(self._name)
        if found is None:
            return Ledger(model_name=self._model_name), None
        try:
            return Ledger.model_validate_json(found[0]), found[1]
        except ValidationError as error:
            place = f"{self._storage.uri}/{self._name}"
            raise ServerError(f"{place} is no registry", "restore it from a backup, or move it away") from error

    def _change(self, change: Callable[[Ledger], Ledger]) -> Ledger:
        for attempt in range(TRIES):
            ledger, tag = self._read()
            changed = change(ledger)
            if changed == ledger:
                return ledger
            body = json.dumps(changed.model_dump(mode="json"), indent=2, allow_nan=False).encode()
            if self._storage.swap(self._name, body, tag):
                return changed
            time.sleep(PAUSE_S * attempt)
        raise ServerError(f"the registry of {self._model_name} is written by many at once", "deploy again")


def _renewed(ledger: Ledger) -> Ledger:
    if ledger.claim is None:
        return ledger
    return ledger.model_copy(update={"claim": ledger.claim.model_copy(update={"until": time.time() + CLAIM_S})})


def _released(ledger: Ledger, token: str) -> Ledger:
    mine = ledger.claim is not None and ledger.claim.token == token
    return ledger.model_copy(update={"claim": None}) if mine else ledger
