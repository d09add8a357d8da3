"""Floor of the house: no domain words. See README.md."""
