"""Drawn embeddings of people, and errors planted into their labels."""

import numpy as np


def draw_people(
    people: int = 60, views: int = 16, dim: int = 32, spread: float = 0.8, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [N, D] whose cosines within a person are about 1 / (1 + spread²), and people."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(people), views)
    noise = rng.normal(size=(len(truth), dim))
    return rng.normal(size=(people, dim))[truth] + spread * noise, truth


def flip(truth: np.ndarray, rate: float, seed: int = 1) -> np.ndarray:
    """Labels of which a share is drawn anew among the others."""
    rng, classes = np.random.default_rng(seed), truth.max() + 1
    moved = rng.integers(1, classes, len(truth)) * (rng.random(len(truth)) < rate)
    return (truth + moved) % classes


def part(truth: np.ndarray, rate: float) -> np.ndarray:
    """Labels where every other image of the first people has a name of its own."""
    second = (truth < rate * (truth.max() + 1)) & (np.arange(len(truth)) % 2 == 1)
    return np.where(second, truth + truth.max() + 1, truth)


def join(truth: np.ndarray, rate: float) -> np.ndarray:
    """Labels where pairs of the first people have one name."""
    joined = truth < rate * (truth.max() + 1)
    return np.unique(np.where(joined, truth // 2 * 2, truth), return_inverse=True)[1]
