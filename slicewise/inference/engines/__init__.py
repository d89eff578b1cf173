"""What computes the network: torch, or a faster engine that gives the same answers to a stated tolerance."""
