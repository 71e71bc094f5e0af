"""Benchmarks: memory, time and accuracy, each beside what a user would do without the product."""
