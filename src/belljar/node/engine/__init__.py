"""Drivers that make sandboxes: one contract (`api`), one conformance suite, several drivers. See README.md."""
