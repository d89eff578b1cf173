"""How a worker runs the network: as its archive says, but for what the server was started with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from slicewise.config import PredictorSettings, ServeConfig, validate

# From the server to its workers, as JSON.
VARIABLE = "SLICEWISE_ENGINE_SETTINGS"


def for_workers(serve: ServeConfig) -> dict[str, str]:
    """The environment entry with the predictor settings that ``serve`` names; its defaults are nobody's wish."""
    named = serve.model_dump(mode="json", include={"predictor"}, exclude_unset=True).get("predictor", {})
    return {VARIABLE: json.dumps(named)}


def settings_of_worker(archived: Mapping[str, Any] | None) -> PredictorSettings | None:
    """The archive's settings, changed by the server's; None where neither says anything.

    Raises:
        ConfigError: A setting is unknown or has a wrong value.
    """
    asked = json.loads(os.environ.get(VARIABLE) or "{}")
    merged = {**(archived or {}), **asked}
    return validate(PredictorSettings, merged) if merged else None
