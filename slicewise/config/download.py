"""The section ``download``: how sources become a dataset folder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from slicewise.config.base import Count, Positive, Section, Share

AtLeastZero = Annotated[float, Field(ge=0.0)]


class PhantomConfig(Section):
    """Synthetic studies made by the source ``phantom``."""

    n_studies: Annotated[int, Field(ge=3)] = 40
    shape: tuple[Count, Count, Count] = (96, 96, 40)
    spacing_mm: tuple[Positive, Positive, Positive] = (2.0, 2.0, 3.5)
    healthy_share: Share = 0.25


class S3Config(Section):
    """How ``s3://`` sources are reached. Keys and secrets are never here: they come from boto3's own chain.

    Attributes:
        endpoint_url: A server other than AWS; default: the environment's AWS_ENDPOINT_URL, or AWS.
        region: Default: as boto3 finds it.
        anonymous: Unsigned requests; ``auto``: when no credentials are found.
        addressing: How the bucket is named in a request; ``auto``: ``path`` where an endpoint is given.
        check_etag: Compare a file with its ETag where that is an MD5. Some servers make ETags of their own.
    """

    endpoint_url: str | None = None
    region: str | None = None
    anonymous: Literal["auto"] | bool = "auto"
    addressing: Literal["auto", "path", "virtual"] = "auto"
    check_etag: bool = True


class ArchiveConfig(Section):
    """How much an archive may unpack to, counted while it is written.

    Attributes:
        max_unpacked_gb: All members together.
        max_member_gb: One member.
        max_members: Their number.
        max_ratio: Unpacked to packed size of the whole archive, looked at from 64 MB on. Label volumes alone
            reach about 200, a set of scans 3 to 10.
    """

    max_unpacked_gb: Positive = 500.0
    max_member_gb: Positive = 50.0
    max_members: Count = 1_000_000
    max_ratio: Positive = 250.0


class DownloadConfig(Section):
    """How sources become a dataset folder.

    Attributes:
        phantom: Size and number of synthetic studies.
        max_studies: At most so many of each source, evenly spaced over its sorted list.
        workers: Files, or parts of large files, that are fetched, copied and digested at a time.
        retries: How often a request is repeated after a failure that may pass.
        backoff_s: The first pause before a repetition; it doubles each time, up to 20 s, with jitter.
        timeout_s: How long a server may be silent.
        part_mb: Larger files are fetched by parts of this size, several at a time; what a kill costs at most.
        keep_free_gb: A download that would leave less of the disk free is refused.
        cache: A folder that keeps what was fetched for later calls (a volume, say); default: none is kept.
        follow_links: Whether links in a folder source may lead out of it.
        s3: How ``s3://`` sources are reached.
        msd_uri: The archive of the source ``msd``.
        msd_endpoint_url: Its server, whatever ``s3.endpoint_url`` says.
        msd_region: Its region.
        kaggle_datasets: What the source ``kaggle`` stands for.
        archive: How much an archive may unpack to.
    """

    phantom: PhantomConfig = PhantomConfig()
    max_studies: Count | None = None
    workers: Annotated[int, Field(ge=1, le=64)] = 4
    retries: Annotated[int, Field(ge=0)] = 5
    backoff_s: Positive = 0.5
    timeout_s: Positive = 60.0
    part_mb: Positive = 8.0
    keep_free_gb: AtLeastZero = 1.0
    cache: str | None = None
    follow_links: bool = False
    s3: S3Config = S3Config()
    msd_uri: str = "s3://msd-for-monai/Task01_BrainTumour.tar"
    msd_endpoint_url: str = "https://s3.us-west-2.amazonaws.com"
    msd_region: str = "us-west-2"
    kaggle_datasets: tuple[str, ...] = ("brain-mri-images-for-brain-tumor-detection", "lgg-mri-segmentation")
    archive: ArchiveConfig = ArchiveConfig()
