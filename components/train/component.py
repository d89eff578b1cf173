"""Component ``train``: one of the three training stages."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("train"), install_kfp_package=False)
def train(
    stage: str,
    store: dsl.Input[dsl.Dataset],
    assignment: dsl.Input[dsl.Artifact],
    model: dict,  # type: ignore[type-arg]
    train: dict,  # type: ignore[type-arg]
    seed: int,
    run_folder: str,
    weights: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    checkpoints: str = "",
    trainjob: dict = {},  # type: ignore[type-arg]  # noqa: B006 - KFP copies it
    init: dsl.Input[dsl.Model] = None,  # type: ignore[assignment]
) -> None:
    """Train one stage; a retried task goes on from its last checkpoint.

    Args:
        stage: ``seg_warmup``, ``cls_head`` or ``joint``.
        store: The slice store.
        assignment: The folder of ``split.json``.
        model: The configuration's section ``model``.
        train: The configuration's section ``train``.
        seed: The run's seed.
        run_folder: The local run's folder, where checkpoints go; empty in a cluster.
        weights: The trained weights and the stage's record.
        metrics: The stage's last figures.
        checkpoints: A folder on a volume that outlives the pod, so that a retried task goes on: each run gets a
            folder of its own in it. Empty puts checkpoints beside the run's results.
        trainjob: How to train on several machines (``components/train/trainjob_settings.py``); empty trains in
            this pod.
        init: The weights of the stage before.
    """
    from components.train.stage import run

    run(stage, store, assignment, model, train, seed, run_folder, weights, metrics, checkpoints, trainjob, init)
