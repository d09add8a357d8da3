"""The process: settings, wiring, sockets. See README.md."""
