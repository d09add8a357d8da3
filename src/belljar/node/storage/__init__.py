"""Where snapshots are kept, durably and once. See README.md."""
