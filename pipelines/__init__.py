"""The pipeline: its definition, compilation, submission and local runner."""
