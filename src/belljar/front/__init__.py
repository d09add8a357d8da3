"""Protocols that clients speak, each a thin translation. Strangers to each other."""
