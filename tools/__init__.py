"""Measuring, proving and reproducing: run by hand, as `python -m tools.NAME`; the product imports none of it."""
