"""The multi-task network and its losses."""
