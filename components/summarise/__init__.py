"""The end of a run as a Kubeflow component."""
