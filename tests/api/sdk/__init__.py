"""The SDK and the command line over a whole server with the fake engine."""
