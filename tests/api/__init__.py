"""The whole server behind its HTTP API."""
