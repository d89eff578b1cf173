"""Files and folders through a model, wherever it runs: what ``slicewise predict`` and ``slicewise explain`` do."""
