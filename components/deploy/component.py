"""Component ``deploy``: serve the packaged model."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("deploy"), install_kfp_package=False)
def deploy(
    bundle: dsl.Input[dsl.Model],
    archive: dsl.Input[dsl.Artifact],
    serve: dict,  # type: ignore[type-arg]
    target: str,
    run_folder: str,
    deployment: dsl.Output[dsl.Artifact],
) -> None:
    """Start TorchServe and the gateway here, or apply an InferenceService in the cluster.

    Args:
        bundle: The bundle folder.
        archive: The folder of the ``.mar`` file.
        serve: The configuration's section ``serve``.
        target: ``local`` or ``kserve``.
        run_folder: The local run's folder; empty in a cluster.
        deployment: ``deployment.json``: where the model is served.
    """
    from components.deploy.stage import run

    run(bundle, archive, serve, target, run_folder, deployment)
