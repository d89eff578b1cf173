"""Component ``preprocess``: a dataset folder to a slice store."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("preprocess"), install_kfp_package=False)
def preprocess(
    dataset: dsl.Input[dsl.Dataset],
    preprocess: dict,  # type: ignore[type-arg]
    seed: int,
    run_folder: str,
    store: dsl.Output[dsl.Dataset],
) -> None:
    """Turn every study into normalised slices.

    Args:
        dataset: The dataset folder.
        preprocess: The configuration's section ``preprocess``.
        seed: Seed of the slice selection.
        run_folder: The local run's folder; empty in a cluster.
        store: The slice store.
    """
    from components.preprocess.stage import run

    run(dataset, preprocess, seed, run_folder, store)
