"""Belljar's own HTTP API, version 1. See README.md."""
