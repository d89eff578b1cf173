"""Component ``split``: train, validation and test by patient group."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("split"), install_kfp_package=False)
def split(
    store: dsl.Input[dsl.Dataset],
    split: dict,  # type: ignore[type-arg]
    seed: int,
    run_folder: str,
    assignment: dsl.Output[dsl.Artifact],
) -> None:
    """Split by patient group and fail on leakage.

    Args:
        store: The slice store.
        split: The configuration's section ``split``.
        seed: Seed of the draw.
        run_folder: The local run's folder; empty in a cluster.
        assignment: The folder of ``split.json``.
    """
    from components.split.stage import run

    run(store, split, seed, run_folder, assignment)
