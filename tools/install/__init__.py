"""What an installation downloads, what the demo may take, and a service that resumes a run after a reboot."""
