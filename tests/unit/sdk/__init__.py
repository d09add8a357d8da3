"""Tests of the SDK against scripted servers and hostile data."""
