"""The model bundle and the Predictor that runs it."""
