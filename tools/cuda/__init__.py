"""Check on one GPU what differs with CUDA."""
