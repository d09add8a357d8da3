"""Contexts: code that runs with its state kept, on kernels that are ordinary processes of the sandbox."""
