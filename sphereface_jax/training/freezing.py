"""Fine-tuning: weights that stay as they are, and a head that learns at another rate or first."""

import fnmatch
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class FineTuning:
    """What an update leaves alone.

    Attributes:
      frozen: shell patterns of the network's weights that stay as they are, with the statistics of
        their normalisations; `stages.0.*` or `*`.
      head_rate: the prototypes' learning rate, and that of what else the loss learns, as a multiple
        of the network's.
      head_first: steps at the start in which the network stays as it is and the head alone learns.
    """

    frozen: tuple[str, ...] = ()
    head_rate: float = 1.0
    head_first: int = 0

    def check(self, params: Any) -> None:
        """Refuses a pattern that no weight answers to, which would freeze nothing in silence.

        Args:
          params: the network's weights, possibly abstract.

        Raises:
          ValueError: naming the pattern and some of the names.
        """
        names = jax.tree.leaves(_names(params))
        for pattern in self.frozen:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"freeze: expected a pattern of the network's weights, such as "
                    f"{', '.join(names[:3])}, got {pattern!r}, which matches none of them"
                )

    def is_frozen(self, tree: Any) -> Any:
        """A tree of bools: the weights, or statistics, that stay as they are."""
        return jax.tree.map(
            lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in self.frozen),
            _names(tree),
        )

    def hold(self, params: Any) -> Any:
        """Cuts the gradient of what is frozen, so that none is computed below it."""
        if not self.frozen:
            return params
        return jax.tree.map(
            lambda leaf, frozen: jax.lax.stop_gradient(leaf) if frozen else leaf,
            params,
            self.is_frozen(params),
        )

    def keep(self, new: Any, old: Any) -> Any:
        """Keeps what is frozen as it was.

        Args:
          new: a tree of the network.
          old: the same before.

        Returns:
          `new`, and `old` where the name is frozen.
        """
        if not self.frozen:
            return new
        return jax.tree.map(
            lambda after, before, frozen: before if frozen else after,
            new,
            old,
            self.is_frozen(new),
        )

    def limit(
        self, part: str, step: jax.Array, updates: Any, opt_state: Any, before: Any
    ) -> tuple[Any, Any]:
        """What is left of an update, and of the optimiser's state after it.

        While the head learns alone, what the optimiser gathers for the network stays as it was;
        its counts go on, for the learning rate follows the run's step.

        Args:
          part: "params" for the network, or what else is trained.
          step: int32 [], updates done.
          updates: of the part.
          opt_state: after this step.
          before: the optimiser's state before it.

        Returns:
          The update, and the optimiser's state.
        """
        if part != "params":
            return jax.tree.map(lambda u: u * self.head_rate, updates), opt_state
        if self.frozen:
            frozen = self.is_frozen(updates)
            updates = jax.tree.map(lambda u, f: jnp.zeros_like(u) if f else u, updates, frozen)
        if self.head_first:
            waits = step < self.head_first
            updates = jax.tree.map(lambda u: jnp.where(waits, 0, u), updates)
            opt_state = jax.tree.map(
                lambda after, was: jnp.where(waits, was, after) if jnp.ndim(after) else after,
                opt_state,
                before,
            )
        return updates, opt_state


def _names(tree: Any) -> Any:
    """The names of a network's weights or statistics, `stages.0.conv.kernel`, as a tree."""

    def name(path: tuple[Any, ...], _: Any) -> str:
        keys = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        return ".".join(key for key in keys if key != "value")

    return jax.tree_util.tree_map_with_path(name, tree)
