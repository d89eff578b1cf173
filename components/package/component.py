"""Component ``package``: the model bundle and the TorchServe archive."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("package"), install_kfp_package=False)
def package(
    store: dsl.Input[dsl.Dataset],
    weights: dsl.Input[dsl.Model],
    calibration: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    model: dict,  # type: ignore[type-arg]
    serve: dict,  # type: ignore[type-arg]
    run_folder: str,
    bundle: dsl.Output[dsl.Model],
    archive: dsl.Output[dsl.Artifact],
    links: dsl.Output[dsl.Markdown],
) -> None:
    """Make what serving needs.

    Args:
        store: The slice store, whose preprocessing goes into the bundle.
        weights: The trained weights.
        calibration: The folder of ``calibration.json``.
        evaluation: The folder of ``metrics.json``.
        model: The configuration's section ``model``.
        serve: The configuration's section ``serve``.
        run_folder: The local run's folder; empty in a cluster.
        bundle: The bundle folder.
        archive: The folder of the ``.mar`` file.
        links: Where both lie, with the bundle's digest.
    """
    from components.package.stage import run

    run(store, weights, calibration, evaluation, model, serve, run_folder, bundle, archive, links)
