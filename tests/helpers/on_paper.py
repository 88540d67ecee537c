"""Vectors whose angles are known."""

import numpy as np


def at_degrees(*degrees: float) -> np.ndarray:
    """Unit vectors [N, 2] at some angles."""
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def unit(x: np.ndarray) -> np.ndarray:
    """Rows [N, D] scaled to unit length."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)
