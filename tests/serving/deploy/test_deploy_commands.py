"""``slicewise deploy`` with its verbs, by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from api_servers import ROOT, Controller, wait_for
from deploying import ledger, states
from models import Model
from typer.testing import CliRunner

from serving.kserve_cluster import STOP_ANNOTATION, digest_of
from serving.registry import Registry
from serving.storage import open_storage
from slicewise.cli import build_app
from slicewise.config import ServeConfig
from slicewise.errors import ServerError, SliceWiseError, UsageError


class Command:
    """The verb with a configuration; errors are raised as they are."""

    def __init__(self, config: ServeConfig) -> None:
        canary = config.canary
        keys = {
            **{key: getattr(config, key) for key in ("namespace", "storage_uri", "storage_mount", "timeout_s")},
            "canary.steps": list(canary.steps),
            **{f"canary.{key}": getattr(canary, key) for key in ("hold_s", "requests", "max_latency_ratio")},
        }
        self.words = [word for key, value in keys.items() for word in ("--set", f"serve.{key}={value}")]

    def __call__(self, *words: str) -> dict[str, Any]:
        done = CliRunner().invoke(build_app(), ["deploy", "--target", "kserve", "--json", *self.words, *words])
        if isinstance(done.exception, SliceWiseError):
            raise done.exception
        assert done.exit_code == 0, done.output
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def deploy(self, model: Model, *words: str) -> dict[str, Any]:
        return self("--bundle", str(model.bundle.folder), "--archive", str(model.archive), *words)


@pytest.fixture
def command(controller: Controller, models: list[Model], claim_config: ServeConfig) -> Any:
    controller.gateways |= {model.digest: model.gateway_url for model in models}
    with controller.reconciling():
        yield Command(claim_config)


def test_the_life_of_three_versions(
    command: Command, controller: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    names = [model.name for model in models]
    assert command("--status")["cluster"] == {"error": "there is no InferenceService slicewise"}
    assert command.deploy(models[0])["version"] == names[0]
    told = command("--status")
    assert (told["serving"], told["candidate"], told["former"], told["deploying"]) == (names[0], None, None, None)
    assert told["cluster"]["url"] == models[0].gateway_url
    assert told["cluster"]["ready"] == "True"
    assert told["cluster"]["serves_the_registered_version"] is True

    # A candidate that waits, and is promoted by hand.
    wait = ("--set", "serve.canary.promote=false")
    assert command.deploy(models[1], *wait)["registry_state"] == "candidate"
    assert command("--status")["candidate"] == names[1]
    assert command("--promote") == {"serving": names[1], "url": models[1].gateway_url}
    assert states(claim_config) == {"3": "former", "4": "serving"}
    beside = controller.service("slicewise-canary")
    assert beside is not None
    assert beside["metadata"]["annotations"][STOP_ANNOTATION] == "true"

    # Another one that waits, and is dropped by hand.
    command.deploy(models[2], *wait, "--set", "serve.canary.min_agreement=0")
    assert command("--rollback") == {"dropped": names[2], "url": models[1].gateway_url}
    # Without a candidate: back one version, and not to the one that was just left.
    assert command("--rollback") == {"serving": names[0], "url": models[0].gateway_url}
    main = controller.service()
    assert main is not None
    assert digest_of(main) == models[0].digest
    assert states(claim_config) == {"3": "serving", "4": "rejected", "5": "rejected"}
    with pytest.raises(UsageError, match="no former version to go back to"):
        command("--rollback")
    with pytest.raises(UsageError, match="no candidate to promote"):
        command("--promote")

    history = command("--history")
    reasons = {item["name"]: item["reason"] for item in history["versions"]}
    assert reasons == {names[0]: "", names[1]: "rolled back by hand", names[2]: "rolled back by hand"}
    moves = [(event["version"][0], event["state"]) for event in history["events"]]
    assert moves == [
        *(("3", "candidate"), ("3", "serving"), ("4", "candidate"), ("4", "serving")),
        *(("5", "candidate"), ("5", "rejected"), ("3", "serving"), ("4", "rejected")),
    ]
    assert ledger(claim_config)["claim"] is None


def test_a_damaged_store_is_not_promoted(
    command: Command, controller: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    command.deploy(models[0])
    command.deploy(models[1], "--set", "serve.canary.promote=false")
    stored = Path(claim_config.storage_mount) / "brain" / models[1].name / "model-store" / "slicewise.mar"
    stored.write_bytes(stored.read_bytes()[:1000])
    with pytest.raises(ServerError, match=r"slicewise\.mar is damaged or missing — deploy this version again"):
        command("--promote")
    main = controller.service()
    assert main is not None
    assert digest_of(main) == models[0].digest


def test_unlock_ends_a_claim(command: Command, models: list[Model], claim_config: ServeConfig) -> None:
    storage = open_storage(claim_config)
    dead = Registry(storage, "slicewise")
    with pytest.raises(ServerError, match="was unlocked, or taken for dead, by somebody else"), dead.claim():
        with pytest.raises(
            ServerError, match=r"another deployment of slicewise is running: process \d+ on .*, since"
        ):
            command.deploy(models[0])
        assert command("--status")["deploying"]["holder"].startswith("process ")
        assert command("--unlock")["unlocked"]["holder"].startswith("process ")
        assert command("--unlock") == {"unlocked": None}
        assert command.deploy(models[0])["registry_state"] == "serving"
        # The one that was taken for dead finds out before it changes anything.
        dead.move(models[0].name, "rejected")
    assert states(claim_config) == {"3": "serving"}


def started(command: Command, model: Model, *more: str) -> subprocess.Popen[str]:
    """The same command as a process of its own."""
    words = ["--bundle", str(model.bundle.folder), "--archive", str(model.archive), *more]
    line = [sys.executable, "-m", "slicewise.cli", "deploy", "--target", "kserve", *command.words, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_deployment_that_is_told_to_stop_puts_everything_back(
    command: Command, controller: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    command.deploy(models[0])
    before = controller.service()
    # The candidate's pods never get ready, as nobody answers at its address.
    controller.gateways.pop(models[1].digest)
    with started(command, models[1]) as process:
        wait_for(lambda: controller.service("slicewise-canary"), "the candidate was not created")
        process.terminate()
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told[-800:]
    beside = controller.service("slicewise-canary")
    assert beside is not None
    assert beside["metadata"]["annotations"][STOP_ANNOTATION] == "true"
    after = controller.service()
    assert after is not None
    assert before is not None
    assert after["spec"] == before["spec"]
    assert states(claim_config) == {"3": "serving", "4": "rejected"}
    assert ledger(claim_config)["versions"][-1]["reason"] == "interrupted (KeyboardInterrupt)"
    assert ledger(claim_config)["claim"] is None


def test_a_deployment_that_was_killed_is_unlocked_and_rolled_back(
    command: Command, controller: Controller, models: list[Model], claim_config: ServeConfig
) -> None:
    command.deploy(models[0])
    controller.gateways.pop(models[1].digest)
    with started(command, models[1], "--set", "serve.canary.steps=[]") as process:
        wait_for(lambda: digest_of(controller.service()) == models[1].digest, "nothing was changed")
        process.kill()
    told = command("--status")
    assert told["candidate"] == models[1].name
    assert told["cluster"]["serves_the_registered_version"] is False
    assert told["deploying"]["holder"].startswith(f"process {process.pid} on ")
    with pytest.raises(ServerError, match="another deployment of slicewise is running"):
        command("--rollback")
    command("--unlock")
    assert command("--rollback") == {"dropped": models[1].name, "url": models[0].gateway_url}
    assert digest_of(controller.service()) == models[0].digest
    assert states(claim_config) == {"3": "serving", "4": "rejected"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "kserve", "--status", "--promote"], "--status and --promote exclude each other"),
        (["--status"], "--status is for the cluster — add --target kserve"),
        ([], "--bundle and --archive are missing"),
    ],
)
def test_wrong_words(words: list[str], message: str) -> None:
    done = CliRunner().invoke(build_app(), ["deploy", *words])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
