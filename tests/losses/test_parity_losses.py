"""Agreement with pytorch-metric-learning, in value and gradient, where the definitions coincide.

They differ in these ways (docs/losses.md says them too):

- its margins for ArcFace are degrees, 28.6 by default, which is 0.4992 rad;
- its losses own their weights, [D, C], and return the mean;
- its SphereFaceLoss has no λ and multiplies ‖x‖ by a further scale, 1 by default;
- its ArcFaceLoss is `beyond="linear"`, ours "keep" by default, as the authors';
- its arccos has an infinite slope at cosines of ±1: NaN gradients there.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from cases import LABELS, assert_close, evaluate, problem

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch", reason="PyTorch is in the extra `parity`")
pml = pytest.importorskip(
    "pytorch_metric_learning.losses", reason="pytorch-metric-learning is in the extra `parity`"
)


def theirs(loss, x, prototypes):
    """Mean loss and gradients of a loss of theirs."""
    loss.W.data = torch.tensor(np.array(prototypes).T)
    x = torch.tensor(np.array(x), requires_grad=True)
    value = loss(x, torch.tensor(LABELS))
    value.backward()
    return value.item(), x.grad.numpy(), loss.W.grad.numpy().T


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # theirs, of NumPy 2
@pytest.mark.parametrize(
    ("name", "options", "their_name", "their_options"),
    [("sphereface", {"margin": m}, "SphereFaceLoss", {"margin": m}) for m in (1, 2, 3, 4)]
    + [
        ("arcface", {"beyond": "linear"}, "ArcFaceLoss", {"margin": np.degrees(0.5)}),
        (
            "arcface",
            {"beyond": "linear", "margin": 0.3, "scale": 30.0},
            "ArcFaceLoss",
            {"margin": np.degrees(0.3), "scale": 30},
        ),
        ("cosface", {}, "CosFaceLoss", {}),
        ("cosface", {"margin": 0.2, "scale": 20.0}, "CosFaceLoss", {"margin": 0.2, "scale": 20}),
        ("normalized_softmax", {"scale": 20.0}, "NormalizedSoftmaxLoss", {"temperature": 0.05}),
    ],
)
def test_loss_agrees_with_pytorch_metric_learning(name, options, their_name, their_options):
    data = problem(name)
    loss = getattr(pml, their_name)(num_classes=6, embedding_size=5, **their_options)
    value, by_x, by_prototypes = theirs(loss, data.x, data.prototypes)
    losses, our_by_x, our_by_prototypes = evaluate(name, options, data.x, data.prototypes)
    np.testing.assert_allclose(losses.mean(), value, rtol=1e-5)
    assert_close(our_by_x / 8, by_x, 1e-4)
    assert_close(our_by_prototypes / 8, by_prototypes, 1e-4)


def test_arcface_loss_is_finite_where_theirs_is_not():
    data = problem("arcface")
    x = data.x.at[0].set(jnp.array([3.0, 0, 0, 0, 0]))
    prototypes = data.prototypes.at[0].set(jnp.array([2.0, 0, 0, 0, 0]))
    loss = pml.ArcFaceLoss(num_classes=6, embedding_size=5, margin=np.degrees(0.5))
    value, by_x, _ = theirs(loss, x, prototypes)
    losses, our_by_x, our_by_prototypes = evaluate("arcface", {"beyond": "linear"}, x, prototypes)
    np.testing.assert_allclose(losses.mean(), value, rtol=1e-5)
    assert np.any(np.isnan(by_x))
    assert np.all(np.isfinite(our_by_x))
    assert np.all(np.isfinite(our_by_prototypes))
