"""The source ``kaggle:owner/name``: a data set of Kaggle, fetched as one zip archive and unpacked."""

from __future__ import annotations

import os
import re
from pathlib import Path

from slicewise.errors import SourceError
from slicewise.files import sha256_json
from slicewise.studies.sources.base import Context, Gathered, Plan, Source
from slicewise.studies.sources.found import find_studies
from slicewise.studies.sources.kaggle_client import as_remote, locate
from slicewise.studies.sources.remote import Remote
from slicewise.studies.sources.transfer import Transfer
from slicewise.studies.sources.unpack import Unpacking

KAGGLE = "kaggle"
# The sets that this project knows, by the name that needs no owner.
KNOWN = {
    "brats20-dataset-training-validation": "awsaf49",
    "brain-mri-images-for-brain-tumor-detection": "navoneel",
    "lgg-mri-segmentation": "mateuszbuda",
}
LICENCES = {
    "awsaf49/brats20-dataset-training-validation": "BraTS data-use agreement",
    "mateuszbuda/lgg-mri-segmentation": "CC BY-NC-SA 4.0",
}
DATASET = re.compile(r"^[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*$")
# What the archives of volumes that are not compressed unpack to, as a multiple of their size.
UNPACKS_TO = 3


class KaggleSource(Source):
    """One data set.

    Args:
        given: ``kaggle:owner/name``, or ``kaggle:name`` for the known ones.
        name: The source's short name.
    """

    def __init__(self, given: str, name: str) -> None:
        super().__init__(given, name)
        self._remote: Remote | None = None

    @property
    def dataset(self) -> str:
        """``owner/name``."""
        word = self.given.partition(":")[2]
        return f"{KNOWN[word]}/{word}" if word in KNOWN else word

    @property
    def licence(self) -> str | None:
        """Of the known sets."""
        return LICENCES.get(self.dataset, "not stated with the files: check the source's terms")

    def require_usable(self, out: Path) -> None:
        """Refuse a name without an owner that is not known."""
        if not DATASET.match(self.dataset):
            cure = f"write kaggle:owner/name as in its address, or one of {', '.join(sorted(KNOWN))}"
            raise SourceError(f"source {self.given!r} names no Kaggle data set", cure)

    def plan(self, context: Context) -> Plan:
        """Sign in, and ask where the archive is and how large."""
        located = locate(self.dataset, context.stage / "client", context.config)
        self._remote = as_remote(located, "archive.zip", self.given, context.config)
        identity = [self.dataset, located.bytes, located.etag, context.config.max_studies]
        # Without an ETag nothing says whether two calls see the same content.
        identity += [] if located.etag else [os.urandom(8).hex()]
        needed = 0
        if not self._unpacking(context).is_done():
            needed = Transfer(context, self.name).missing_bytes([self._remote]) + UNPACKS_TO * located.bytes
        return Plan(sha256_json(identity), needed)

    def gather(self, context: Context) -> Gathered:
        """Fetch the archive and unpack it."""
        assert self._remote is not None, "plan comes first"
        job = self._unpacking(context)
        if not job.is_done():
            Transfer(context, self.name).run([self._remote])
            job.run()
            job.archive.unlink()
        records = find_studies(job.target, self.given, self.name, context.config.max_studies)
        return Gathered(job.target, records, (self._remote.file,))

    def _unpacking(self, context: Context) -> Unpacking:
        assert self._remote is not None, "plan comes first"
        archive = context.stage / "files" / "archive.zip"
        return Unpacking(
            archive=archive,
            target=context.stage / "unpacked",
            identity=f"{self._remote.file.bytes} {self._remote.file.etag}",
            config=context.config,
            progress=context.progress,
            label=self.given,
        )
