"""Benchmarks, proofs and reproductions: run by hand as `python -m tools.NAME`, never imported by the product."""
