"""The image that each component runs in, unless the cluster's settings name another."""

from slicewise import __version__

REGISTRY = "ghcr.io/slicewise"
# "python" is part of the name because kfp's local runner takes no image without it.
PIPELINE_IMAGE = f"{REGISTRY}/pipeline-python:{__version__}"
CUDA = "-cuda"
# Component → the target it is built from (images/README.md): with a CUDA build of torch, or without.
TARGETS = {
    "download": "pipeline",
    "preprocess": "pipeline",
    "preprocess_shard": "pipeline",
    "merge_shards": "pipeline",
    "split": "pipeline",
    "train": "pipeline-cuda",
    "calibrate": "pipeline-cuda",
    "evaluate": "pipeline-cuda",
    "gate": "pipeline",
    "package": "pipeline",
    "deploy": "pipeline",
    "summarise": "pipeline",
}


def component_image(name: str, *, gpu: bool = True) -> str:
    """The image of a component.

    Args:
        name: The component.
        gpu: Whether there is a GPU for those that can use one.
    """
    return PIPELINE_IMAGE + (CUDA if gpu and TARGETS[name].endswith(CUDA) else "")
