"""Which studies of a source are taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slicewise.studies.study import StudyRecord


def evenly(records: Sequence[StudyRecord], limit: int | None) -> tuple[StudyRecord, ...]:
    """At most ``limit`` records, evenly spaced over the sorted list (and so over ``yes`` and ``no``)."""
    if limit is None or limit >= len(records):
        return tuple(records)
    return tuple(records[int(index)] for index in (np.arange(limit) + 0.5) * len(records) / limit)
