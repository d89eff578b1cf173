"""The verbs that use a model: ``predict`` and ``explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from slicewise import RESEARCH_USE
from slicewise.cli_options import Json, emit
from slicewise.errors import UsageError
from slicewise.progress import progress

if TYPE_CHECKING:
    from slicewise.inference.explain import ExplainMethod
    from slicewise.inference.predict.model import PredictModel
    from slicewise.inference.predict.run import Summary

PROTOCOLS = ("v2-http", "v2-grpc", "rest")
DEFAULT_TASKS = "classify,segment"
SHOWN_FAILURES = 20

Given = Annotated[Path, typer.Argument(help="A slice, a volume, a study's folder, or a folder of many.")]
BundleFolder = Annotated[Path | None, typer.Option("--bundle", help="A bundle, or a run with bundle/ in it.")]
Url = Annotated[str | None, typer.Option("--url", help="A running server instead, e.g. http://127.0.0.1:8080.")]
Protocol = Annotated[str, typer.Option("--protocol", help="How to talk to the server: v2-http, v2-grpc or rest.")]
GrpcPort = Annotated[int, typer.Option("--grpc-port", help="The server's port for v2-grpc.")]
Device = Annotated[str, typer.Option("--device", help="With --bundle: cpu, cuda or auto.")]
Modalities = Annotated[
    str | None, typer.Option("--modalities", help="Of files that do not tell: flair, t1, t1ce, t2 or unknown.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("predict")(predict)
    app.command("explain")(explain)


def predict(
    given: Given,
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    bundle: BundleFolder = None,
    url: Url = None,
    protocol: Protocol = PROTOCOLS[0],
    grpc_port: GrpcPort = 8081,
    tasks: Annotated[str, typer.Option(help="Some of classify, segment, explain, uncertainty.")] = DEFAULT_TASKS,
    threshold: Annotated[float | None, typer.Option(help="By default the bundle's.")] = None,
    n_mc_samples: Annotated[int, typer.Option(help="For uncertainty, 1 to 50.")] = 10,
    use_tta: Annotated[bool, typer.Option("--use-tta", help="For uncertainty: the mirror image, too.")] = False,
    modalities: Modalities = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Draw each item.")] = False,
    resume: Annotated[bool, typer.Option(help="Keep what an earlier run has finished.")] = True,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Predict slices and studies with a bundle here, or with a running server.

    Writes predictions.csv, predictions.json and masks/ (PNG for slices, NIfTI in the input's geometry for studies).
    A bad item fails alone and is named at the end; exit code 1 when none succeeded. Called again after a kill, it
    goes on from what is finished. Research use only; not for diagnosis.

    Example: slicewise predict scans/ --bundle runs/my-run --out results

    Example: slicewise predict slice.png --url http://127.0.0.1:8080 --out results --overlay
    """
    from slicewise.inference.predict.run import PredictJob, predict_items
    from slicewise.inference.predictor import PredictOptions

    chosen = tuple(task.strip() for task in tasks.split(",") if task.strip())
    options = PredictOptions(chosen, threshold, n_mc_samples=n_mc_samples, use_tta=use_tta)
    job = PredictJob(given, out, options, _words(modalities), overlay=overlay, resume=resume)
    model = _open_model(bundle, url, protocol, grpc_port, device)
    with progress("predict") as update:
        summary = predict_items(job, model, update)
    emit(_summary(summary, out), as_json=json, text=_text(summary, out))
    if len(summary.failed) == len(summary.records):
        raise typer.Exit(1)


def explain(
    given: Given,
    out: Annotated[Path, typer.Option("--out", help="The picture to write: .png, .webp or .jpg.")],
    bundle: BundleFolder = None,
    url: Url = None,
    protocol: Protocol = PROTOCOLS[0],
    grpc_port: GrpcPort = 8081,
    method: Annotated[str, typer.Option(help="gradcam, hirescam, occlusion or integrated_gradients.")] = "gradcam",
    slice_: Annotated[
        int | None, typer.Option("--slice", help="Of a study, from 0; by default the most suspicious one.")
    ] = None,
    modalities: Modalities = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw where in a slice the evidence for tumour lies. Research use only; not for diagnosis.

    Example: slicewise explain slice.png --bundle runs/my-run --out why.png --method hirescam
    """
    from slicewise.inference.predict.explain_file import ExplainJob, explain_file

    job = ExplainJob(given, out, cast("ExplainMethod", method), slice_, _words(modalities))
    found = explain_file(job, _open_model(bundle, url, protocol, grpc_port, device))
    told = {
        "picture": str(out),
        "method": method,
        "slice": found.slice_index,
        "tumor_probability": found.prediction.tumor_probability,
        "tumor_label": found.prediction.tumor_label,
        "research_use": RESEARCH_USE,
    }
    text = f"{out}: tumour probability {found.prediction.tumor_probability:.3f}\n{RESEARCH_USE}"
    emit(told, as_json=json, text=text)


def _open_model(bundle: Path | None, url: str | None, protocol: str, grpc_port: int, device: str) -> PredictModel:
    if (bundle is None) == (url is None):
        raise UsageError("a model is needed: --bundle or --url", "give one of them")
    if protocol not in PROTOCOLS:
        raise UsageError(f"--protocol {protocol!r} is unknown", f"use one of {', '.join(PROTOCOLS)}")
    if bundle is not None:
        from slicewise.inference.predict.model import LocalModel

        return LocalModel.load(bundle, device)
    from slicewise import client

    return cast("PredictModel", client.open_model(url, protocol, grpc_port))


def _words(given: str | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(word.strip() for word in given.split(",") if word.strip())


def _summary(summary: Summary, out: Path) -> dict[str, Any]:
    failed = [{"item": one.item, **(one.error.model_dump() if one.error else {})} for one in summary.failed]
    return {
        "out": str(out),
        "items": len(summary.records),
        "done": len(summary.records) - len(failed),
        "resumed": summary.resumed,
        "failed": failed,
        "research_use": RESEARCH_USE,
    }


def _text(summary: Summary, out: Path) -> str:
    failed = summary.failed
    done = len(summary.records) - len(failed)
    lines = [f"{out}: {done} of {len(summary.records)} items done, {summary.resumed} of them earlier"]
    lines += [f"failed: {one.item}: {one.told}" for one in failed[:SHOWN_FAILURES]]
    if len(failed) > SHOWN_FAILURES:
        lines.append(f"and {len(failed) - SHOWN_FAILURES} more, named in predictions.csv")
    return "\n".join([*lines, RESEARCH_USE])
