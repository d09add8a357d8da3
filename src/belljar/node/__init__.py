"""One machine: the only privileged floor. `api.NodeApi` is its only door. See README.md."""
