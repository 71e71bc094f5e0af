"""Training as a walk over visits: their order, the loop, commits, scores."""
