"""Alembic's folder: the schema, one step a file. A released step is never edited."""
