"""Reproduce the paper's tables and figure 2."""
