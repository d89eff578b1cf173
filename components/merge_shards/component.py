"""Component ``merge_shards``: the shards of a slice store to the store."""

from typing import List  # noqa: UP035 - KFP knows this spelling only

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("merge_shards"), install_kfp_package=False)
def merge_shards(
    shards: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    preprocess: dict,  # type: ignore[type-arg]
    run_folder: str,
    store: dsl.Output[dsl.Dataset],
) -> None:
    """Check every shard and make one store of them, the one that a single process would have written.

    Args:
        shards: What ``preprocess_shard`` made, all of one dataset.
        preprocess: The configuration's section ``preprocess``, for the share of studies that may fail.
        run_folder: The local run's folder; empty in a cluster.
        store: The slice store.
    """
    from components.merge_shards.stage import run

    run(shards, preprocess, run_folder, store)
