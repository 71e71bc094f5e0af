"""What CUDA changes, checked on one GPU."""
