"""The web page: static files and a few read-only routes beside the gateway's own."""
