"""The kernel: a program that runs code in a sandbox with its state kept. `docs/kernel.md` is what it does; README.md is where."""
