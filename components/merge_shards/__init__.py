"""The end of a preprocess stage in shards as a Kubeflow component."""
