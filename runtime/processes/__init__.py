"""The parent process, its child processes, and the messages between them."""
