"""The exported file beside the network, module by module."""
