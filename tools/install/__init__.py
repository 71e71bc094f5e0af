"""Download sizes, the demo's budget, and a systemd service that resumes a run after a reboot."""
