"""The package stage as a Kubeflow component."""
