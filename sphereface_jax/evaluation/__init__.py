"""Protocols that turn embeddings into numbers: pure functions, no files."""
