"""Angular-margin learning of face embeddings in JAX."""

__version__ = "0.1.0"
