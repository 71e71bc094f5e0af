"""What is done with a run: the parent process runs the jobs, and dialogues decide which, apart from it."""
