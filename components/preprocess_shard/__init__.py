"""One shard of the preprocess stage as a Kubeflow component."""
