"""Component ``gate``: the verdict that decides on deployment."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("gate"), install_kfp_package=False)
def gate(evaluation: dsl.Input[dsl.Artifact], run_folder: str) -> str:
    """Read evaluate's verdict.

    The output keeps KFP's own name for a single output: the local runner takes a condition on a named one
    for false.

    Args:
        evaluation: The folder of ``metrics.json``.
        run_folder: The local run's folder; empty in a cluster.

    Returns:
        ``passed`` or ``refused``.
    """
    from components.gate.stage import run

    return run(evaluation, run_folder)
