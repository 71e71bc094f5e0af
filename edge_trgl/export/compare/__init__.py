"""Comparison of an exported file with the network, module by module."""
