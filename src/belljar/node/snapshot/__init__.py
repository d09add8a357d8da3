"""Snapshots of one machine's sandboxes: memory, filesystem, directory. See README.md."""
