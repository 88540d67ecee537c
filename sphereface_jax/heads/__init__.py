"""The one head engine: cosines, a margin, a scale, a reduction over the classes."""
