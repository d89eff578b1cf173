"""The pipeline: one definition, compiled for the cluster and run on this machine."""

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.calibrate.component import calibrate as calibrate_component
from components.deploy.component import deploy as deploy_component
from components.download.component import download as download_component
from components.evaluate.component import evaluate as evaluate_component
from components.gate.component import gate as gate_component
from components.package.component import package as package_component
from components.preprocess.component import preprocess as preprocess_component
from components.split.component import split as split_component
from components.train.component import train as train_component
from pipelines.cluster import ClusterConfig, place
from slicewise.config import Config

NAME = "slicewise"


def build_pipeline(config: Config, cluster: ClusterConfig, *, deploy_target: str = "kserve") -> BaseComponent:
    """Define the pipeline.

    Every section of the configuration is a parameter of its own, with the given configuration as default: the
    Kubeflow UI shows them apart, and a changed section makes only the stages run again that read it.

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
        train: dict = config.section("train"),  # type: ignore[type-arg]  # noqa: B008
        calibrate: dict = config.section("calibrate"),  # type: ignore[type-arg]  # noqa: B008
        evaluate: dict = config.section("evaluate"),  # type: ignore[type-arg]  # noqa: B008
        gate: dict = config.section("gate"),  # type: ignore[type-arg]  # noqa: B008
        serve: dict = config.section("serve"),  # type: ignore[type-arg]  # noqa: B008
        deploy_target: str = deploy_target,
        run_folder: str = "",
    ):
        data = download_component(sources=sources, download=download, seed=seed, run_folder=run_folder)
        place(data, cluster)
        store = preprocess_component(
            dataset=data.outputs["dataset"], preprocess=preprocess, seed=seed, run_folder=run_folder
        )
        place(store, cluster, heavy=True)
        sides = split_component(store=store.outputs["store"], split=split, seed=seed, run_folder=run_folder)
        place(sides, cluster)
        common = {
            "store": store.outputs["store"],
            "assignment": sides.outputs["assignment"],
            "model": model,
            "run_folder": run_folder,
        }
        stage_common = common | {"train": train, "seed": seed, "checkpoints": cluster.checkpoints}
        warm = train_component(stage="seg_warmup", **stage_common).set_display_name("train: seg_warmup")
        head = train_component(stage="cls_head", init=warm.outputs["weights"], **stage_common)
        head.set_display_name("train: cls_head")
        joint = train_component(stage="joint", init=head.outputs["weights"], **stage_common)
        joint.set_display_name("train: joint")
        for task in (warm, head, joint):
            place(task, cluster, heavy=True, gpu=True)
        trained = common | {"weights": joint.outputs["weights"]}
        fitted = calibrate_component(calibrate=calibrate, **trained)
        place(fitted, cluster, heavy=True, gpu=True)
        judged = evaluate_component(
            calibration=fitted.outputs["calibration"], evaluate=evaluate, gate=gate, **trained
        )
        place(judged, cluster, heavy=True, gpu=True)
        verdict = gate_component(evaluation=judged.outputs["evaluation"], run_folder=run_folder)
        place(verdict, cluster)
        with dsl.If(verdict.output == "passed", name="gate-passed"):
            packed = package_component(
                store=store.outputs["store"],
                weights=joint.outputs["weights"],
                calibration=fitted.outputs["calibration"],
                evaluation=judged.outputs["evaluation"],
                model=model,
                serve=serve,
                run_folder=run_folder,
            )
            place(packed, cluster)
            served = deploy_component(
                bundle=packed.outputs["bundle"],
                archive=packed.outputs["archive"],
                serve=serve,
                target=deploy_target,
                run_folder=run_folder,
            )
            place(served, cluster)
            # What runs is not a result to be remembered: a resumed run deploys again.
            served.set_caching_options(False)

    return slicewise
