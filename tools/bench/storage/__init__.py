"""Measure the cost of keeping boundaries and modules on disk."""
