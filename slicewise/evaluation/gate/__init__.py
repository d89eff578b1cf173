"""The quality gate: test figures against the limits of the configuration, written down as data and as sentences."""

from slicewise.evaluation.gate.judge import judge

__all__ = ["judge"]
