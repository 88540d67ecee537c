"""The loss of a run: one of the library's by name or one's own, its hyper-parameters and its λ."""

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sphereface_jax.geometry import normalize, safe_arccos
from sphereface_jax.heads.reductions import Nearest
from sphereface_jax.losses import LOSSES
from sphereface_jax.losses.class_size import class_size_margins
from sphereface_jax.losses.margin_loss import nearest
from sphereface_jax.losses.table import Loss
from sphereface_jax.schedules import annealed_lambda
from sphereface_jax.training.config import LossConfig


@dataclass(frozen=True)
class Objective:
    """Calls the loss that a config names, with the λ of the step.

    Attributes:
      config: the loss's name and hyper-parameters.
      num_classes: how many rows of the prototypes are classes.
      mesh: devices that share the classes; None: XLA lays the loss out.
      own: a loss of the user's own, which the config's name names; None: one of `LOSSES`.
      class_counts: images per class [num_classes], for the losses whose margins follow them.

    Raises:
      ValueError: there is no loss of that name, or it does not take a hyper-parameter.
    """

    config: LossConfig
    num_classes: int
    mesh: Mesh | None = None
    own: Loss | None = None
    class_counts: np.ndarray | None = None

    def __post_init__(self) -> None:
        name = self.config.name
        if self.own is None and name not in LOSSES:
            raise ValueError(
                f"loss.name: expected one of {', '.join(LOSSES)}, got {name!r}; a loss of your own "
                "is given as train(config, loss=...), when a run goes on too"
            )
        if self.own is not None and name in LOSSES:
            raise ValueError(f"loss.name: expected a name for a loss of your own, got {name!r}")
        if self.own is not None and self.own.num_subcenters is not None:
            raise ValueError("loss: expected prototypes [C, D] of a loss of your own")
        taken = self.row.hyperparameters.keys() - {"annealing_lambda"}
        taken |= self._class_size_options.keys()
        for option in self.hyperparameters:
            if option not in taken:
                raise ValueError(
                    f"loss.{option}: {name} takes no {option}; it takes "
                    f"{', '.join(sorted(taken)) or 'no hyper-parameters'}"
                )
        if "gradient" not in self.row.arguments and self.config.gradient != "exact":
            raise ValueError(f"loss.gradient: expected exact, since {name} takes no gradient")
        try:
            jax.eval_shape(self._try_once)
        except ValueError as error:
            raise ValueError(f"loss.{error}") from None

    def _try_once(self) -> Any:
        """Calls the loss on abstract arrays: a wrong value is named before any data are read."""
        prototypes = jnp.zeros(self.prototypes_shape(2))
        batch = 1 if self.mesh is None else self.mesh.size
        labels = jnp.zeros(batch, jnp.int32)
        keys = jax.random.split(jax.random.key(0), batch)
        return self.loss(
            jnp.zeros((batch, 2)),
            prototypes,
            labels,
            self.init_state(),
            labels[0],
            keys=keys,
            class_margins=jnp.zeros(self.num_classes),
        )

    @property
    def row(self) -> Loss:
        """What the trainer knows of the loss."""
        return LOSSES[self.config.name] if self.own is None else self.own

    @property
    def _class_size_options(self) -> dict[str, Any]:
        """Hyper-parameters of the margins by class size, of a loss that takes them."""
        if "class_margins" not in self.row.arguments:
            return {}
        parameters = inspect.signature(class_size_margins).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @functools.cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """The hyper-parameters that the config gives, by the names that the loss gives them."""
        config = self.config
        given = {
            "margin": config.margin,
            "scale": config.scale,
            "filter_threshold": config.filter_threshold,
        }
        return {name: value for name, value in given.items() if value is not None} | {
            name: _number_or_text(value) for name, value in config.options.items()
        }

    @functools.cached_property
    def class_margins(self) -> np.ndarray | None:
        """Margins by class size [num_classes], for a loss that takes them.

        Raises:
          ValueError: the images per class are not known, or are not of these classes.
        """
        options = self._class_size_options
        if not options:
            return None
        if self.class_counts is None or len(self.class_counts) != self.num_classes:
            raise ValueError(
                f"class_counts: expected the images of each of {self.num_classes} classes, which "
                f"{self.config.name} takes its margins from"
            )
        options |= {name: self.hyperparameters.get(name, value) for name, value in options.items()}
        with jax.ensure_compile_time_eval():
            return np.asarray(class_size_margins(jnp.asarray(self.class_counts), **options))

    def annealing_lambda(self, step: jax.typing.ArrayLike) -> jax.Array | None:
        """Returns λ at a step, or None for a loss that anneals nothing."""
        if "annealing_lambda" not in self.row.hyperparameters:
            return None
        config = self.config
        return annealed_lambda(
            config.lambda_base, config.lambda_gamma, config.lambda_power, config.lambda_minimum
        )(step)

    def prototypes_shape(self, embedding_dim: int) -> tuple[int, ...]:
        """Returns [C, D], or [C, K, D] for a loss with sub-centres."""
        centers = self.row.num_subcenters
        return (self.num_classes, *(() if centers is None else (centers,)), embedding_dim)

    def init_state(self) -> Any:
        """Returns what the loss carries from step to step, at the start."""
        return self.row.init_state(self.num_classes, **self.hyperparameters)

    def loss(
        self,
        embeddings: jax.Array,
        prototypes: jax.Array,
        labels: jax.Array,
        state: Any,
        step: jax.Array,
        *,
        num_classes: int | None = None,
        keys: jax.Array | None = None,
        class_margins: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """The loss of each example.

        Args:
          embeddings: [B, D].
          prototypes: [C, D] or [C, K, D].
          labels: [B].
          state: what the loss carries from step to step; None for most.
          step: int32 [], which decides λ.
          num_classes: rows of the prototypes that are classes; all of the run by default.
          keys: a PRNG key per example [B], for a loss that draws.
          class_margins: of each row of the prototypes [C], for a loss that takes them.

        Returns:
          Losses [B], and the loss's next state, None where it has none.
        """
        trainer_gives = {
            "annealing_lambda": self.annealing_lambda(step),
            "state": state,
            "key": keys,
            "class_margins": class_margins,
            "gradient": self.config.gradient,
            "num_classes": num_classes or self.num_classes,
            "class_block": self.config.class_block,
            "mesh": self.mesh,
        }
        taken = self.row.arguments
        sizes = self._class_size_options
        options = {name: value for name, value in trainer_gives.items() if name in taken}
        options |= {name: v for name, v in self.hyperparameters.items() if name not in sizes}
        result = self.row.loss(embeddings, prototypes, labels, **options)
        return result if "state" in taken else (result, None)

    def project(self, prototypes: jax.Array) -> jax.Array:
        """Puts the prototypes where the gradient mode expects them: on the sphere for "caffe"."""
        return normalize(prototypes) if self.config.gradient == "caffe" else prototypes

    def nearest(
        self,
        embeddings: jax.Array,
        prototypes: jax.Array,
        labels: jax.Array,
        *,
        num_classes: int | None = None,
    ) -> Nearest:
        """How each example lies on the sphere, without any margin.

        Args:
          embeddings: [B, D].
          prototypes: [C, D] or [C, K, D].
          labels: [B].
          num_classes: rows of the prototypes that are classes; all of the run by default.

        Returns:
          The target's cosine, the nearest other class and its cosine, each [B].
        """
        return nearest(
            embeddings,
            prototypes,
            labels,
            num_classes=num_classes or self.num_classes,
            class_block=self.config.class_block,
            mesh=self.mesh,
        )

    def metrics(self, embeddings: jax.Array, found: Nearest) -> dict[str, jax.Array]:
        """Returns how the batch lies on the sphere: means of what `nearest` found.

        Args:
          embeddings: [B, D].
          found: of them.

        Returns:
          accuracy of the nearest prototype, where a tie counts as wrong, mean target_angle in
          degrees, mean embedding_norm.
        """
        return {
            "accuracy": jnp.mean(found.cosine > found.other_cosine),
            "target_angle": jnp.degrees(safe_arccos(found.cosine)).mean(),
            "embedding_norm": jnp.linalg.norm(embeddings, axis=1).mean(),
        }


def restored_objective(config: LossConfig, num_classes: int) -> Objective:
    """The objective of a run that is only used: a loss of the user's own need not be there.

    Args:
      config: of the run.
      num_classes: of the run.

    Returns:
      The objective; a loss that is not there is replaced by one of 0.
    """

    def missing(*_: Any, num_classes: int) -> jax.Array:
        del num_classes
        return jnp.zeros(())

    own = None if config.name in LOSSES else Loss(missing)
    if own is not None:
        config = LossConfig(name=config.name)
    return Objective(config, num_classes, own=own)


def _number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
