"""The section ``serve``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from slicewise.config.base import Count, Section


class ServeConfig(Section):
    """The served model; port 0 takes a free one."""

    model_name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = "slicewise"
    gateway_port: Annotated[int, Field(ge=0, le=65535)] = 0
    gateway_grpc_port: Annotated[int, Field(ge=0, le=65535)] = 0
    torchserve_port: Annotated[int, Field(ge=0, le=65535)] = 0
    workers: Count = 1
    batch_size: Count = 8
    max_batch_delay_ms: Annotated[int, Field(ge=0)] = 20
    max_request_mb: Count = 256
    timeout_s: Count = 120
    namespace: str = "slicewise"
    storage_uri: str = ""
