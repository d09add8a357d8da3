"""The kernel as a process over pipes, with harmless code."""
