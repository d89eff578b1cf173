"""The split stage as a Kubeflow component."""
