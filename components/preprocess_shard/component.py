"""Component ``preprocess_shard``: a part of a dataset to a slice store."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("preprocess_shard"), install_kfp_package=False)
def preprocess_shard(
    dataset: dsl.Input[dsl.Dataset],
    preprocess: dict,  # type: ignore[type-arg]
    seed: int,
    shard: int,
    shards: int,
    run_folder: str,
    store: dsl.Output[dsl.Dataset],
) -> None:
    """Turn every ``shards``-th study into normalised slices.

    Args:
        dataset: The dataset folder.
        preprocess: The configuration's section ``preprocess``.
        seed: Seed of the slice selection.
        shard: Which one, from 0.
        shards: How many there are.
        run_folder: The local run's folder; empty in a cluster.
        store: The shard, a slice store of its own; ``merge_shards`` joins them.
    """
    from components.preprocess_shard.stage import run

    run(dataset, preprocess, seed, shard, shards, run_folder, store)
