"""Code shared by the tools."""
