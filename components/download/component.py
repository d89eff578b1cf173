"""Component ``download``: sources to a dataset folder."""

from kfp import dsl

from components.images import component_image


@dsl.component(base_image=component_image("download"), install_kfp_package=False)
def download(
    sources: list,  # type: ignore[type-arg]
    download: dict,  # type: ignore[type-arg]
    seed: int,
    run_folder: str,
    dataset: dsl.Output[dsl.Dataset],
) -> None:
    """Resolve sources into a dataset folder with a manifest of every file.

    Args:
        sources: Folders, archives, ``s3://bucket/prefix``, ``msd``, ``kaggle``, ``kaggle:owner/name``, ``phantom``.
        download: The configuration's section ``download``.
        seed: Seed of the phantoms.
        run_folder: The local run's folder; empty in a cluster.
        dataset: The dataset folder.
    """
    from components.download.stage import run

    run(sources, download, seed, run_folder, dataset)
