"""The product as verbs: no HTTP, no engine. See README.md."""
