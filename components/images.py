"""The image that components run in, unless the cluster's settings name another."""

from slicewise import __version__

PIPELINE_IMAGE = f"ghcr.io/slicewise/pipeline-python:{__version__}"
