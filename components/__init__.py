"""One folder per stage: a Kubeflow component that is a typed signature and one call."""
