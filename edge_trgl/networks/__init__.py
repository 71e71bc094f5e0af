"""Networks as chains of blocks, grouped into modules with heads of their own."""
