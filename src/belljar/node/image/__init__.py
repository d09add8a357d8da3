"""Images: what a sandbox starts from."""
