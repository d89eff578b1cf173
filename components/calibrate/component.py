"""Component ``calibrate``: probabilities, the decision threshold and the band of unsure answers."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("calibrate"), install_kfp_package=False)
def calibrate(
    store: dsl.Input[dsl.Dataset],
    assignment: dsl.Input[dsl.Artifact],
    weights: dsl.Input[dsl.Model],
    model: dict,  # type: ignore[type-arg]
    calibrate: dict,  # type: ignore[type-arg]
    run_folder: str,
    calibration: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Fit the calibration on the validation split.

    Args:
        store: The slice store.
        assignment: The folder of ``split.json``.
        weights: The trained weights.
        model: The configuration's section ``model``.
        calibrate: The configuration's section ``calibrate``.
        run_folder: The local run's folder; empty in a cluster.
        calibration: The folder of ``calibration.json``.
        metrics: Figures before and after.
    """
    from components.calibrate.stage import run

    run(store, assignment, weights, model, calibrate, run_folder, calibration, metrics)
