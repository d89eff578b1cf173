"""Calibration, metrics with intervals, the report and the gate."""
