"""``report.html``: one self-contained page about a run; and ``compare.html``, one that compares two."""

from slicewise.evaluation.report.compare_page import Side, write_comparison
from slicewise.evaluation.report.page import FILE, write_report

__all__ = ["FILE", "Side", "write_comparison", "write_report"]
