"""Guests that wait for a claim. See README.md."""
