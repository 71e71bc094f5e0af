"""Networks as chains of blocks, cut into modules with heads."""
