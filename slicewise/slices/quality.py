"""What is known of a study's quality: kept with the study in the store and shown in the report."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class QualityRecord(BaseModel):
    """One study's quality, as measured while it was preprocessed.

    Attributes:
        frame: ``(slices, rows, columns)`` of the study in the plane that was cut.
        coverage: Share of the study's voxels that are head or brain.
        snr: Per modality an estimate of the signal-to-noise ratio: the mean of the head over the noise of its
            middle slice, estimated from second differences (Immerkær, Comput. Vis. Image Underst. 1996); None
            where the slice is too uniform to tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frame: tuple[int, int, int]
    coverage: float
    snr: dict[str, float | None]
