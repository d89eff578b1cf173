"""The train stage as a Kubeflow component."""
