"""The parent process, its children, and what they say to each other."""
