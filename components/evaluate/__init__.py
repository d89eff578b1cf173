"""The evaluate stage as a Kubeflow component."""
