"""What was measured, as JSON, and the page that is made of it."""
