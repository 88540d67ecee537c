"""What the trainer, the report and the documents need to know of a loss, beside its function."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]

_HEAD = {"gradient", "num_classes", "class_block", "mesh"}
_GIVEN = {"state", "key", "class_margins", "bias"}


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss as the trainer takes it: `train(config, loss=Loss(my_loss))` takes one of your own.

    Attributes:
      loss: (embeddings [B, D], prototypes [C, D], labels [B], *, ...) -> losses [B], or losses and
        the next state. Its keyword-only arguments are hyper-parameters, but for those that the
        trainer gives where the function takes them: annealing_lambda, the λ of the step; state;
        key, a PRNG key per example [B] of the step; class_margins [C], by the images per class;
        gradient, num_classes, class_block and mesh.
      logits: the same with logits [B, C], or None.
      title: what people call it.
      start: (num_classes, **hyper-parameters that it takes) -> the state at the start; None: the
        loss has no state.
      learns_state: whether the state is a parameter that takes gradient.
      whole_batch: whether an example's loss, or the state, depends on the others of its batch.
      num_subcenters: the usual K of prototypes [C, K, D]; None: prototypes are [C, D].
    """

    loss: Function
    logits: Function | None = None
    title: str = ""
    start: Function | None = None
    learns_state: bool = False
    whole_batch: bool = False
    num_subcenters: int | None = None

    @functools.cached_property
    def arguments(self) -> dict[str, Any]:
        """The keyword-only arguments of the loss, with their defaults."""
        parameters = inspect.signature(self.loss).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @functools.cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """Names and defaults of the hyper-parameters."""
        return {
            name: default
            for name, default in self.arguments.items()
            if name not in _HEAD and name not in _GIVEN
        }

    def init_state(self, num_classes: int, **hyperparameters: Any) -> Any:
        """The state at the start of training.

        Args:
          num_classes: C.
          **hyperparameters: those of the loss; the state may depend on some.

        Returns:
          The state; None if the loss has none.
        """
        if self.start is None:
            return None
        taken = inspect.signature(self.start).parameters
        given = {name: value for name, value in hyperparameters.items() if name in taken}
        return self.start(num_classes, **given)
