"""The preprocess stage as a Kubeflow component."""
