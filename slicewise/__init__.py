"""SliceWise: from raw brain MRI to a calibrated model of tumour presence and extent.

Research use only; not for diagnosis.
"""

__version__ = "0.1.0"

RESEARCH_USE = "Research use only; not for diagnosis."
