"""What must be known after a restart; the only SQL of the project. See README.md."""
