"""The gate stage as a Kubeflow component."""
