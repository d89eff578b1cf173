"""Component ``summarise``: how the run ended, whatever happened."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("summarise"), install_kfp_package=False)
def summarise(
    status: dsl.PipelineTaskFinalStatus,
    run_folder: str,
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Write the run's summary: the pipeline's exit handler.

    Args:
        status: How the stages ended, filled in by Kubeflow.
        run_folder: The local run's folder; empty in a cluster.
        summary: State, failed task, error, the stages, and where the outputs are.
    """
    from components.summarise.stage import run

    run(status, run_folder, summary)
