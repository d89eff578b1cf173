"""The source ``msd``: Task01 (brain tumours) of the Medical Segmentation Decathlon, from its public bucket.

Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 13, 4128 (2022).
"""

from __future__ import annotations

from slicewise.config import DownloadConfig
from slicewise.config.download import S3Config
from slicewise.studies.sources.base import Context
from slicewise.studies.sources.s3 import S3Source

MSD = "msd"


class MsdSource(S3Source):
    """One public tar archive of 750 scans, 484 of them with labels (7.1 GB).

    Args:
        given: ``msd``.
        name: The source's short name.
        config: Its address.
    """

    def __init__(self, given: str, name: str, config: DownloadConfig) -> None:
        super().__init__(given, name, config.msd_uri)

    @property
    def licence(self) -> str | None:
        """The Decathlon's."""
        return "CC BY-SA 4.0"

    def _server(self, context: Context) -> S3Config:
        config = context.config
        return S3Config(endpoint_url=config.msd_endpoint_url, region=config.msd_region, anonymous=True)
