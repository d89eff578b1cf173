"""The inner loops of preprocessing, compiled by numba: one slice plane at a time, no allocation by pixel.

The same compiled functions serve the slice store and a single request, so that both see equal bytes: every value
is turned to float32 before any arithmetic (an int16 file and the float32 tensor of a request agree), and sums run
in a fixed order (per column, then over columns), which keeps them both exact to repeat and fast in SIMD.
"""

from slicewise.slices.kernels.intensities import (
    FLAT,
    SAMPLES,
    extremes,
    mark_head,
    mask_range,
    masked_extremes,
    moments,
    robust_range,
    sample_size,
    scale_linear,
    scale_pieces,
    standardise,
    take_sample,
    window_range,
)
from slicewise.slices.kernels.resampling import copy_box, count_by_slice, nearest, resample, to_half
from slicewise.slices.kernels.restoring import enlarge

__all__ = [
    "FLAT",
    "SAMPLES",
    "copy_box",
    "count_by_slice",
    "enlarge",
    "extremes",
    "mark_head",
    "mask_range",
    "masked_extremes",
    "moments",
    "nearest",
    "resample",
    "robust_range",
    "sample_size",
    "scale_linear",
    "scale_pieces",
    "standardise",
    "take_sample",
    "to_half",
    "window_range",
]
