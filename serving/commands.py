"""The verb ``slicewise serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.versions import commands as versions

EXAMPLE = """Serve a bundle, or all versions of a models folder, behind the KServe gateway, on this machine only.

Example: slicewise serve runs/my-run/bundle --port 8080

Example: slicewise serve models --backend inprocess

Then open http://127.0.0.1:8080/ or: curl -F file=@slice.png http://127.0.0.1:8080/classify
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("serve", help=EXAMPLE)(serve)
    versions.register(app)


def serve(
    bundle: Annotated[
        Path, typer.Argument(help="A bundle folder, a run folder, a .mar file, or a models folder (1/, 2/, …).")
    ],
    port: Annotated[int, typer.Option(help="REST, V1 and V2 over HTTP; 0 takes a free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(help="V2 over gRPC; 0 takes a free one.")] = 8081,
    torchserve_port: Annotated[int, typer.Option(help="TorchServe; 0 takes a free one.")] = 8085,
    backend: Annotated[
        str | None,
        typer.Option(help="torchserve-http, torchserve-grpc, or inprocess (no JVM); serve.backend by default."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="torch (default), openvino, or auto: the fastest by a probe at the start."),
    ] = None,
    ui: Annotated[bool, typer.Option("--ui", help="Serve the web page too, at /ui/.")] = False,
    runs: Annotated[Path | None, typer.Option(help="With --ui: a folder of runs to show.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file with keys to change.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. serve.workers=2")] = None,
) -> None:
    """Serve until Ctrl-C; everything stops with it."""
    import logging

    from serving.stack import serve_stack
    from serving.state import StackState
    from slicewise.config import load_config
    from slicewise.inference.bundle import find_bundle

    logging.getLogger("httpx").setLevel(logging.WARNING)
    ports = {"gateway_port": port, "gateway_grpc_port": grpc_port, "torchserve_port": torchserve_port}
    changes: dict[str, object] = ports | ({} if runs is None else {"ui_runs": str(runs.resolve())})
    words = [*(overrides or ()), *([f"serve.backend={backend}"] if backend else [])]
    words += [f"serve.predictor.engine={engine}"] if engine else []
    words += ["serve.ui=true"] if ui or runs is not None else []
    settings = load_config(file=config, overrides=words).serve.model_copy(update=changes)

    def announce(state: StackState) -> None:
        page = f"  page: {state.gateway_url}/ui/" if settings.ui else ""
        typer.echo(f"ready: {state.gateway_url}  (gRPC on 127.0.0.1:{state.grpc_port}; Ctrl-C stops it){page}")

    serve_stack(find_bundle(bundle), settings, on_ready=announce)
