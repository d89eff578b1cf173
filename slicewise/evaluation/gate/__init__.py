"""The quality gate: test figures against the limits of the configuration, written down as data and as sentences."""

from slicewise.evaluation.gate.judge import check_gate, judge

__all__ = ["check_gate", "judge"]
