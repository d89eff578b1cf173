"""The pipeline: one definition, compiled for the cluster and run on this machine."""

from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.calibrate.component import calibrate as calibrate_component
from components.deploy.component import deploy as deploy_component
from components.download.component import download as download_component
from components.evaluate.component import evaluate as evaluate_component
from components.gate.component import gate as gate_component
from components.merge_shards.component import merge_shards as merge_component
from components.package.component import package as package_component
from components.preprocess.component import preprocess as preprocess_component
from components.preprocess_shard.component import preprocess_shard as shard_component
from components.split.component import split as split_component
from components.summarise.component import summarise as summarise_component
from components.train.component import train as train_component
from pipelines.cluster import ClusterConfig
from pipelines.placement import place, trainjob_section
from slicewise.config import Config

NAME = "slicewise"


def build_pipeline(config: Config, cluster: ClusterConfig, *, deploy_target: str = "kserve") -> BaseComponent:
    """Define the pipeline.

    Every section of the configuration is a parameter of its own, with the given configuration as default: the
    Kubeflow UI shows them apart, and a changed section makes only the stages run again that read it. The shape is
    fixed here: ``preprocess.shards`` and ``cluster`` decide it, not a parameter.

    Args:
        config: Defaults of the parameters.
        cluster: Where and with what the tasks run.
        deploy_target: Default of the parameter: ``kserve`` in a cluster, ``local`` on this machine.
    """

    @dsl.pipeline(name=NAME, description="Brain MRI to a calibrated, served tumour model. Research use only.")
    def slicewise(  # type: ignore[no-untyped-def]
        sources: list = ["phantom"],  # type: ignore[type-arg]  # noqa: B006 - KFP copies it
        seed: int = config.seed,
        download: dict = config.section("download"),  # type: ignore[type-arg]  # noqa: B008
        preprocess: dict = config.section("preprocess"),  # type: ignore[type-arg]  # noqa: B008
        split: dict = config.section("split"),  # type: ignore[type-arg]  # noqa: B008
        model: dict = config.section("model"),  # type: ignore[type-arg]  # noqa: B008
        train: dict = _train_section(config, cluster),  # type: ignore[type-arg]  # noqa: B008
        calibrate: dict = config.section("calibrate"),  # type: ignore[type-arg]  # noqa: B008
        evaluate: dict = config.section("evaluate"),  # type: ignore[type-arg]  # noqa: B008
        gate: dict = config.section("gate"),  # type: ignore[type-arg]  # noqa: B008
        serve: dict = config.section("serve"),  # type: ignore[type-arg]  # noqa: B008
        deploy_target: str = deploy_target,
        run_folder: str = "",
    ):
        ending = summarise_component(run_folder=run_folder)
        place(ending, cluster, "summarise")
        with dsl.ExitHandler(ending, name="stages"):
            data = download_component(sources=sources, download=download, seed=seed, run_folder=run_folder)
            place(data, cluster, "download")
            given = {
                "dataset": data.outputs["dataset"],
                "preprocess": preprocess,
                "seed": seed,
                "run_folder": run_folder,
            }
            store = _preprocess(given, config, cluster)
            sides = split_component(store=store, split=split, seed=seed, run_folder=run_folder)
            place(sides, cluster, "split")
            common = {
                "store": store,
                "assignment": sides.outputs["assignment"],
                "model": model,
                "run_folder": run_folder,
            }
            weights = _train(common | {"train": train, "seed": seed}, cluster)
            trained = common | {"weights": weights}
            fitted = calibrate_component(calibrate=calibrate, **trained)
            place(fitted, cluster, "calibrate")
            judged = evaluate_component(
                calibration=fitted.outputs["calibration"], evaluate=evaluate, gate=gate, **trained
            )
            place(judged, cluster, "evaluate")
            verdict = gate_component(evaluation=judged.outputs["evaluation"], run_folder=run_folder)
            place(verdict, cluster, "gate")
            with dsl.If(verdict.output == "passed", name="gate-passed"):
                packed = package_component(
                    store=store,
                    weights=weights,
                    calibration=fitted.outputs["calibration"],
                    evaluation=judged.outputs["evaluation"],
                    model=model,
                    serve=serve,
                    run_folder=run_folder,
                )
                place(packed, cluster, "package")
                served = deploy_component(
                    bundle=packed.outputs["bundle"],
                    archive=packed.outputs["archive"],
                    serve=serve,
                    target=deploy_target,
                    run_folder=run_folder,
                )
                place(served, cluster, "deploy")

    return slicewise


def _train_section(config: Config, cluster: ClusterConfig) -> dict[str, Any]:
    """The section ``train``, with one process for each GPU that the tasks ask for."""
    section = config.section("train")
    if cluster.has_gpu and not config.train.processes:
        section["processes"] = cluster.processes
    return section


def _preprocess(common: dict[str, Any], config: Config, cluster: ClusterConfig) -> Any:
    """The slice store: made by one task, or by one for each shard and a last one that joins them."""
    shards = config.preprocess.shards
    if shards == 1:
        whole = preprocess_component(**common)
        place(whole, cluster, "preprocess")
        return whole.outputs["store"]
    with dsl.ParallelFor(list(range(shards)), name="shards") as shard:
        part = shard_component(shard=shard, shards=shards, **common)
        place(part, cluster, "preprocess_shard")
    merged = merge_component(
        shards=dsl.Collected(part.outputs["store"]),
        preprocess=common["preprocess"],
        run_folder=common["run_folder"],
    )
    place(merged, cluster, "merge_shards")
    return merged.outputs["store"]


def _train(common: dict[str, Any], cluster: ClusterConfig) -> Any:
    """The weights after the three stages, each of which starts from those of the one before."""
    common = common | {"checkpoints": cluster.checkpoints, "trainjob": trainjob_section(cluster)}
    init: dict[str, Any] = {}
    for name in ("seg_warmup", "cls_head", "joint"):
        task = train_component(stage=name, **init, **common).set_display_name(f"train: {name}")
        place(task, cluster, "train")
        init = {"init": task.outputs["weights"]}
    return init["init"]
