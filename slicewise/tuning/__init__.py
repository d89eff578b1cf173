"""The search for settings: trials of one space, judged on validation, that a kill does not lose."""
