"""Component ``evaluate``: the test split, judged once."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("evaluate"), install_kfp_package=False)
def evaluate(
    store: dsl.Input[dsl.Dataset],
    assignment: dsl.Input[dsl.Artifact],
    weights: dsl.Input[dsl.Model],
    calibration: dsl.Input[dsl.Artifact],
    model: dict,  # type: ignore[type-arg]
    evaluate: dict,  # type: ignore[type-arg]
    gate: dict,  # type: ignore[type-arg]
    run_folder: str,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    model_card: dsl.Output[dsl.Markdown],
) -> None:
    """Judge the model on the test split and write the report.

    Args:
        store: The slice store.
        assignment: The folder of ``split.json``.
        weights: The trained weights.
        calibration: The folder of ``calibration.json``.
        model: The configuration's section ``model``.
        evaluate: The configuration's section ``evaluate``.
        gate: The configuration's section ``gate``, for the verdict.
        run_folder: The local run's folder; empty in a cluster.
        evaluation: The folder of ``metrics.json`` and ``report.html``.
        metrics: The key figures.
        classification: The confusion matrix and the ROC curve.
        report: The report as one HTML file.
        model_card: The model card.
    """
    from components.evaluate.stage import run

    run(
        store,
        assignment,
        weights,
        calibration,
        model,
        evaluate,
        gate,
        run_folder,
        evaluation,
        metrics,
        classification,
        report,
        model_card,
    )
