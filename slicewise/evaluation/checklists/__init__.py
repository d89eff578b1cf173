"""Reporting checklists, filled from ``metrics.json`` as far as a run can answer them."""

from slicewise.evaluation.checklists.fill import Filled, FilledItem, fill_checklists, write_checklists

__all__ = ["Filled", "FilledItem", "fill_checklists", "write_checklists"]
