"""Models of libraries: cut, exported, fine-tuned."""
