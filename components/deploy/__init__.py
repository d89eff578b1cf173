"""The deploy stage as a Kubeflow component."""
