"""Backbones: networks from images to embeddings."""
