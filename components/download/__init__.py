"""The download stage as a Kubeflow component."""
