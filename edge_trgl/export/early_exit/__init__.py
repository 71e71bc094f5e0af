"""Networks exported in stages, and their early-exit thresholds."""
