"""Networks in stages, and the thresholds to leave them at."""
