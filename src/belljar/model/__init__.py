"""The nouns of the product, pure. See README.md."""
