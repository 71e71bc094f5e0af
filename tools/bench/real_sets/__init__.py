"""Real sets that nobody tuned for, against plain PyTorch."""
