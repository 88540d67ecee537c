"""From one row of the table of losses to its two public functions.

A row names the functions that make up a loss. Their keyword-only arguments are the loss's
hyper-parameters and their defaults its defaults, so that a hyper-parameter is written down once:
beside the formula that uses it.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax

from sphereface_jax import _checks
from sphereface_jax.heads.dense import dense_logits
from sphereface_jax.heads.documentation import docstring
from sphereface_jax.heads.engine import Margin, Reduction, SoftmaxCrossEntropy
from sphereface_jax.heads.over_classes import loss_over_classes


def _keyword_defaults(*functions: Callable | None) -> dict[str, Any]:
    """Names and defaults of the functions' keyword-only parameters, in order."""
    return {
        parameter.name: parameter.default
        for function in functions
        if function is not None
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _bind(function: Callable | None, values: Mapping[str, Any]) -> Any:
    """The function with its keyword-only parameters given."""
    if function is None:
        return None
    return jax.tree_util.Partial(
        function, **{name: values[name] for name in _keyword_defaults(function)}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """One loss: a row of the table.

    Attributes:
      name: what `--loss.name` calls it; its functions are NAME_loss and NAME_logits.
      summary: one line that says what it is.
      formula: its logits f and, where it is more than their cross entropy, its loss.
      source: paper, or file of the authors.
      target: the margin; see `margins`.
      negatives: what becomes of the other classes' cosines, if anything does.
      update: how the state follows the batch, if it does.
      start: (num_classes, *, hyper-parameters) -> the state at the start; None: it has no state.
      state_is_bias: whether the state is a parameter that is added to the logits and learnt.
      class_bias: whether the loss takes a bias [C].
      scale: what the cosines are multiplied by; None means each embedding's own length.
      loss_weight: if given, the loss is multiplied by loss_weight / scale.
      reduction: how an example's logits become its loss.
      regularizer: what is added to the loss; see `regularizers`.
      normalized: whether cosines are taken; else inner products, which are not scaled.
      num_subcenters: the usual K of prototypes [C, K, D]; None: prototypes are [C, D].
      target_gradient: the coefficients of gradient="caffe", where the loss offers it.
      example: a doctest.
    """

    name: str
    summary: str
    formula: str
    source: str
    target: Callable
    negatives: Callable | None = None
    update: Callable | None = None
    start: Callable | None = None
    state_is_bias: bool = False
    class_bias: bool = False
    scale: float | None = None
    loss_weight: float | None = None
    reduction: Callable[..., Reduction] = SoftmaxCrossEntropy
    regularizer: Callable | None = None
    normalized: bool = True
    num_subcenters: int | None = None
    target_gradient: Callable | None = None
    example: str = ""

    @property
    def gradients(self) -> tuple[str, ...]:
        """The values that `gradient` may take."""
        return ("exact", "detached", "caffe") if self.target_gradient else ("exact", "detached")

    @property
    def logit_hyperparameters(self) -> dict[str, Any]:
        """Names and defaults of the hyper-parameters that the logits depend on."""
        scale = {"scale": self.scale} if self.normalized else {}
        return _keyword_defaults(self.target, self.negatives, self.update) | scale

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Names and defaults of the hyper-parameters of the loss."""
        weight = {} if self.loss_weight is None else {"loss_weight": self.loss_weight}
        own = _keyword_defaults(self.reduction, self.regularizer) | weight
        return self.logit_hyperparameters | own

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
        return _bind(self.start, self.hyperparameters | hyperparameters)(num_classes)

    def margin(self, hyperparameters: Mapping[str, Any], gradient: str = "exact") -> Margin:
        """What the engine takes.

        Args:
          hyperparameters: their values; the others keep their defaults.
          gradient: one of `gradients`.

        Returns:
          The margin, its hyper-parameters bound.

        Raises:
          ValueError: if a value is not what its formula takes.
        """
        values = self.hyperparameters | dict(hyperparameters)
        for name, value in values.items():
            _checks.require_hyperparameter(name, value, self.hyperparameters[name])
        _checks.require_choice("gradient", gradient, self.gradients)
        scale = values.get("scale", 1.0)
        if gradient == "caffe":
            _checks.require(scale is None, "scale", "None with gradient='caffe'", scale)
        is_weighted = self.loss_weight is not None and scale is not None
        return Margin(
            target=_bind(self.target, values),
            negatives=_bind(self.negatives, values),
            update=_bind(self.update, values),
            scale=scale,
            reduction=_bind(self.reduction, values)(),
            weight=values["loss_weight"] / scale if is_weighted else 1.0,
            regularizer=_bind(self.regularizer, values),
            normalized=self.normalized,
            detached=gradient == "detached",
            target_gradient=_bind(self.target_gradient, values) if gradient == "caffe" else None,
        )

    @functools.cached_property
    def loss(self) -> Callable[..., Any]:
        """The public function (embeddings, prototypes, labels, *, ...) -> [B]."""
        return _public_function(
            self, "loss", loss_over_classes, self.hyperparameters, class_block=None, mesh=None
        )

    @functools.cached_property
    def logits(self) -> Callable[..., Any]:
        """The public function (embeddings, prototypes, labels, *, ...) -> [B, C]."""
        return _public_function(self, "logits", dense_logits, self.logit_hyperparameters)

    @property
    def functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The two public functions: loss and logits."""
        return self.loss, self.logits


def _signature(
    row: Loss, hyperparameters: Mapping[str, Any], head_options: Mapping[str, Any]
) -> inspect.Signature:
    keywords = dict(hyperparameters)
    if row.class_bias:
        keywords["bias"] = None
    if row.start is not None:
        keywords["state"] = inspect.Parameter.empty
    keywords |= {"gradient": "exact", "num_classes": None, **head_options}
    tensors = ("embeddings", "prototypes", "labels")
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [inspect.Parameter(name, positional) for name in tensors]
        + [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, default in keywords.items()
        ]
    )


def _public_function(
    row: Loss,
    kind: str,
    head: Callable,
    hyperparameters: Mapping[str, Any],
    **head_options: Any,
) -> Callable[..., Any]:
    name = f"{row.name}_{kind}"
    signature = _signature(row, hyperparameters, head_options)

    def function(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None
        bound.apply_defaults()
        options = {option: bound.arguments.pop(option) for option in head_options}
        return _apply(row, functools.partial(head, **options), **bound.arguments)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "sphereface_jax.losses"
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__doc__ = docstring(row, kind, signature)
    return function


def _apply(
    row: Loss,
    head: Callable,
    embeddings: jax.Array,
    prototypes: jax.Array,
    labels: jax.Array,
    *,
    gradient: str,
    num_classes: int | None,
    state: Any = None,
    bias: jax.Array | None = None,
    **hyperparameters: Any,
) -> Any:
    """Checks the arguments of a public function and hands them to a head."""
    axes = "C, D" if row.num_subcenters is None else "C, K, D"
    num_classes = _checks.require_head_inputs(
        embeddings, prototypes, labels, num_classes, axes=axes
    )
    if bias is not None:
        _checks.require_floating("bias", bias, "C")
        size, rows = bias.shape[0], prototypes.shape[0]
        _checks.require(size == rows, "bias", f"shape [{rows}], one a prototype", f"shape [{size}]")
    if row.start is not None:
        _checks.require_like("state", state, jax.eval_shape(lambda: row.init_state(2)))
    result, state = head(
        row.margin(hyperparameters, gradient),
        embeddings,
        prototypes,
        labels,
        num_classes=num_classes,
        state=state,
        bias=state if row.state_is_bias else bias,
    )
    return result if row.start is None else (result, state)
