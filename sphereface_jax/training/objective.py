"""The loss of a run: a loss of the library by name, its hyper-parameters and its annealed λ."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sphereface_jax.geometry import normalize, safe_arccos
from sphereface_jax.heads.over_classes import nearest
from sphereface_jax.losses import LOSSES
from sphereface_jax.schedules import annealed_lambda
from sphereface_jax.training.config import LossConfig

# The hyper-parameters that are angles, by the loss and, where it has them, its variant.
_ANGLES = {
    ("sphereface2", "A"): ("margin",),
    ("arcface", None): ("margin",),
    ("combined_margin", None): ("m2",),
    ("subcenter_arcface", None): ("margin",),
    ("curricularface", None): ("margin",),
    ("magface", None): ("lower_margin", "upper_margin"),
    ("adaface", None): ("margin",),
}


@dataclass(frozen=True)
class Objective:
    """Calls the loss that a config names, with the λ of the step.

    Attributes:
      config: the loss's name and hyper-parameters.
      num_classes: how many rows of the prototypes are classes.
      mesh: devices that share the classes; None: XLA lays the loss out.

    Raises:
      ValueError: there is no loss of that name, or it does not take a hyper-parameter.
    """

    config: LossConfig
    num_classes: int
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        name = self.config.name
        if name not in LOSSES:
            raise ValueError(f"loss.name: expected one of {', '.join(LOSSES)}, got {name!r}")
        taken = self._row.hyperparameters.keys() - {"annealing_lambda"}
        for option in self.hyperparameters:
            if option not in taken:
                raise ValueError(
                    f"loss.{option}: {name} takes no {option}; it takes "
                    f"{', '.join(sorted(taken)) or 'no hyper-parameters'}"
                )
        jax.eval_shape(self._try_once)

    def _try_once(self) -> Any:
        """Calls the loss on abstract arrays: a wrong value is named before any data are read."""
        prototypes = jnp.zeros(self.prototypes_shape(2))
        batch = 1 if self.mesh is None else self.mesh.size
        labels = jnp.zeros(batch, jnp.int32)
        return self.loss(jnp.zeros((batch, 2)), prototypes, labels, self.init_state(), labels[0])

    @property
    def _row(self) -> Any:
        return LOSSES[self.config.name]

    @functools.cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """The hyper-parameters that the config gives, by the names that the loss gives them."""
        config = self.config
        given = {"margin": config.margin, "scale": config.scale}
        return {name: value for name, value in given.items() if value is not None} | {
            name: _number_or_text(value) for name, value in config.options.items()
        }

    @property
    def learns_state(self) -> bool:
        """Whether the loss's state is a parameter that is learnt."""
        return self._row.state_is_bias

    @property
    def looks_at_whole_batch(self) -> bool:
        """Whether an example's loss, or the state, depends on the others of its batch."""
        if self._row.update is not None:
            return True
        regularizer = self._row.margin(self.hyperparameters).regularizer
        if regularizer is None:
            return False
        two = jnp.zeros(2)
        # A regularizer of each example by itself says what it adds to each.
        return jax.eval_shape(regularizer, two, two[:, None], two.astype(jnp.int32)).ndim == 0

    def annealing_lambda(self, step: jax.typing.ArrayLike) -> jax.Array | None:
        """Returns λ at a step, or None for a loss that anneals nothing."""
        if "annealing_lambda" not in self._row.hyperparameters:
            return None
        config = self.config
        return annealed_lambda(
            config.lambda_base, config.lambda_gamma, config.lambda_power, config.lambda_minimum
        )(step)

    def prototypes_shape(self, embedding_dim: int) -> tuple[int, ...]:
        """Returns [C, D], or [C, K, D] for a loss with sub-centres."""
        centers = self._row.num_subcenters
        return (self.num_classes, *(() if centers is None else (centers,)), embedding_dim)

    def init_state(self) -> Any:
        """Returns what the loss carries from step to step, at the start."""
        options = self._row.hyperparameters.keys() & self.hyperparameters.keys()
        given = {name: self.hyperparameters[name] for name in options}
        return self._row.init_state(self.num_classes, **given)

    def loss(
        self,
        embeddings: jax.Array,
        prototypes: jax.Array,
        labels: jax.Array,
        state: Any,
        step: jax.Array,
        *,
        num_classes: int | None = None,
    ) -> tuple[jax.Array, Any]:
        """Returns the loss of each example, [B], and the loss's next state.

        num_classes counts the rows of the prototypes that are classes; all of the run by default.
        """
        options = dict(self.hyperparameters)
        annealing = self.annealing_lambda(step)
        if annealing is not None:
            options["annealing_lambda"] = annealing
        loss = functools.partial(
            self._row.loss,
            embeddings,
            prototypes,
            labels,
            num_classes=num_classes or self.num_classes,
            class_block=self.config.class_block,
            mesh=self.mesh,
            gradient=self.config.gradient,
            **options,
        )
        return (loss(), None) if state is None else loss(state=state)

    def project(self, prototypes: jax.Array) -> jax.Array:
        """Puts the prototypes where the gradient mode expects them: on the sphere for "caffe"."""
        return normalize(prototypes) if self.config.gradient == "caffe" else prototypes

    def metrics(
        self,
        embeddings: jax.Array,
        prototypes: jax.Array,
        labels: jax.Array,
        *,
        num_classes: int | None = None,
    ) -> dict[str, jax.Array]:
        """Returns how the batch lies on the sphere, without any margin.

        Returns:
          accuracy of the nearest prototype, mean target_angle in degrees, mean embedding_norm.
        """
        target, is_nearest = nearest(
            embeddings,
            prototypes,
            labels,
            num_classes=num_classes or self.num_classes,
            class_block=self.config.class_block,
            mesh=self.mesh,
        )
        return {
            "accuracy": jnp.mean(is_nearest),
            "target_angle": jnp.degrees(safe_arccos(target)).mean(),
            "embedding_norm": jnp.linalg.norm(embeddings, axis=1).mean(),
        }


def require_radians(objective: Objective) -> None:
    """Checks that the margins that are angles are not in degrees.

    Raises:
      ValueError: one is larger than π.
    """
    given = objective.hyperparameters
    for name in _ANGLES.get((objective.config.name, given.get("variant")), ()):
        if given.get(name, 0) > math.pi:
            raise ValueError(
                f"loss.{name}: expected an angle in radians, at most π, got {given[name]:g}; "
                f"{given[name]:g} degrees are {math.radians(given[name]):.4g}"
            )


def _number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
