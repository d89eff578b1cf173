"""The calibrate stage as a Kubeflow component."""
