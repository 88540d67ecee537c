"""A float64 NumPy oracle of every loss, written from the papers' formulas and nothing else.

It works with angles, arccos and floor, example by example, as one would on paper; it shares no code
with the library. `freeze` computes what a gradient does not pass through (state, AdaFace's z), so
that `gradients` may take finite differences of `losses` alone.
"""

import math
from types import SimpleNamespace

import numpy as np

PI = math.pi


def unit(vectors):
    """Directions; a zero vector has none and stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def cosines(x, prototypes):
    """[B, C]; with sub-centres [C, K, D] the best of K."""
    c = np.einsum("bd,...d->b...", unit(x), unit(prototypes))
    c = np.clip(c, -1, 1)
    return c.max(axis=2) if c.ndim == 3 else c


def psi(c, m):
    """SphereFace's monotone ψ; on a border both neighbouring segments give the same value."""
    theta = np.arccos(c)
    k = np.clip(np.floor(m * theta / PI), 0, math.ceil(m) - 1)
    return (-1.0) ** k * np.cos(m * theta) - 2 * k


def psi_slope(c, m, step=1e-6):
    """dψ/dc; m² at c = 1, by de l'Hôpital."""
    if c > 1 - 1e-9:
        return float(m * m)
    return (psi(c + step, m) - psi(c - step, m)) / (2 * step)


def similarity(z, t):
    """SphereFace2's g."""
    return 2 * ((z + 1) / 2) ** t - 1


def softplus(z):
    return np.logaddexp(0, z)


def freeze(name, x, prototypes, y, state=None, *, rate=0.01, h=0.333, **_):
    """State after the batch, and AdaFace's z."""
    if name == "curricularface":
        return 0.99 * state + 0.01 * cosines(x, prototypes)[np.arange(len(y)), y].mean()
    if name.startswith("elastic_"):
        return SimpleNamespace(draws=state, cosine_y=cosines(x, prototypes)[np.arange(len(y)), y])
    if name == "adaface":
        z = np.clip(np.linalg.norm(x, axis=1), 1e-3, 100)
        mean = (1 - rate) * state[0] + rate * z.mean()
        std = (1 - rate) * state[1] + rate * z.std(ddof=1) if len(z) > 1 else state[1]
        quality = np.clip(h * (z - mean) / (std + 1e-3), -1, 1)
        return SimpleNamespace(mean=mean, std=std, quality=quality)
    return state


def elastic_margins(name, frozen, sigma=None, ranking="cosine", **_):
    """One margin per example, from standard normal draws; by the cosines for the "+" forms."""
    mean = 0.5 if "arc" in name else 0.35
    if not name.endswith("_plus"):
        return mean + (0.05 if sigma is None else sigma) * frozen.draws
    draws = np.sort(mean + (0.0175 if "arc" in name else 0.02) * frozen.draws)
    order = np.argsort(-frozen.cosine_y)
    if ranking == "released":  # margin[idicate_cosie] of fdbtrs/ElasticFace, utils/losses.py
        return draws[order]
    margins = np.empty_like(draws)
    margins[order] = draws  # the smallest margin to the largest cosine
    return margins


def arcface_target(c, m, beyond):
    theta = math.acos(c)
    if theta <= PI - m or beyond == "keep":
        return math.cos(theta + m)
    return {"linear": c - m * math.sin(m), "clamp": -1.0}[beyond]


def _target_and_others(name, c, y, norm, frozen, i, p):
    """What stands in place of the target's cosine, and of all cosines."""
    c_y, others = c[y], c.copy()
    theta = math.acos(c_y)
    # One value per example, of any hyper-parameter
    p = {key: value[i] if np.ndim(value) == 1 else value for key, value in p.items()}
    if name in ("softmax", "normalized_softmax"):
        target = c_y
    elif name in ("sphereface", "sphereface_plus"):
        lam = p.get("annealing_lambda", 0.0)
        target = (lam * c_y + psi(c_y, p.get("margin", 4))) / (1 + lam)
    elif name == "sphereface_r":
        m, version = p.get("margin", 1.4), p.get("version", "v2")
        if version == "v0":
            target = psi(c_y, m)
        elif version == "v1":
            target = math.cos(min(m * theta, PI))
        else:
            target, others = c_y, np.cos(np.arccos(c) / m)
    elif name == "sphereface2":
        variant, t = p.get("variant", "C"), p.get("exponent", 3.0)
        m = p.get("margin", {"C": 0.4, "A": 0.5, "M": 1.7}[variant])
        others = similarity(c, t) + (m if variant == "C" else 0)
        if variant == "C":
            target = similarity(c_y, t) - m
        else:
            target = similarity(math.cos(min(theta + m if variant == "A" else m * theta, PI)), t)
    elif name == "cosface":
        target = c_y - p.get("margin", 0.35)
    elif name.startswith("elastic_"):
        m = elastic_margins(name, frozen, **p)[i]
        target = math.cos(theta + m) if "arc" in name else c_y - m
    elif name == "ldam":
        target = c_y - frozen[y]
    elif name == "dynamic_arcface":
        target = math.cos(theta + frozen[y])
    elif name == "uniface":
        target = c_y - p.get("margin", 0.4)
    elif name in ("arcface", "subcenter_arcface"):
        target = arcface_target(c_y, p.get("margin", 0.5), p.get("beyond", "keep"))
    elif name == "combined_margin":
        target = math.cos(p.get("m1", 1.0) * theta + p.get("m2", 0.5)) - p.get("m3", 0.0)
    elif name == "curricularface":
        m = p.get("margin", 0.5)
        target = arcface_target(c_y, m, "linear")
        others = np.where(c > math.cos(theta + m), c * (frozen + c), c)
    elif name == "magface":
        a = min(max(norm, 10.0), 110.0)
        lower = p.get("lower_margin", 0.45)
        m = lower + (0.8 - lower) * (a - 10) / 100
        target = math.cos(theta + m) if c_y > 0 else c_y
    elif name == "adaface":
        m, z = p.get("margin", 0.4), frozen.quality[i]
        others = np.clip(c, -1 + 1e-3, 1 - 1e-3)
        angle = np.clip(np.arccos(others[y]) - m * z, 1e-3, PI - 1e-3)
        target = np.cos(angle) - (m + m * z)
    else:
        raise KeyError(name)
    return target, others


def bias_of(frozen):
    """The learnt bias, where the state is one."""
    return frozen if np.ndim(frozen) == 0 and not isinstance(frozen, SimpleNamespace | None) else 0


SCALES = {"sphereface": None, "sphereface_plus": None, "sphereface_r": 60.0, "sphereface2": 40.0}


def logits(name, x, prototypes, y, frozen=None, bias=None, **p):
    """Logits [B, C]."""
    if name == "softmax":
        return x @ prototypes.T + (0 if bias is None else bias)
    all_cosines, norms = cosines(x, prototypes), np.linalg.norm(x, axis=1)
    scale = p.get("scale", SCALES.get(name, 64.0))
    result = np.empty_like(all_cosines)
    threshold = np.broadcast_to(p.get("filter_threshold", np.inf), len(y))
    for i, c in enumerate(all_cosines):
        target, result[i] = _target_and_others(name, c, y[i], norms[i], frozen, i, p)
        result[i, c > threshold[i]] = -np.inf
        result[i, y[i]] = target
        result[i] *= norms[i] if scale is None else np.broadcast_to(scale, len(y))[i]
    return result + {"sphereface2": 1, "uniface": -1}.get(name, 0) * bias_of(frozen)


def energy(prototypes, y):
    """Mean θ⁻² over the pairs of different classes of a batch."""
    w = unit(prototypes[np.unique(y)])
    pairs = [
        math.acos(np.clip(w[i] @ w[j], -1 + 1e-5, 1 - 1e-5)) ** -2
        for i in range(len(w))
        for j in range(i)
    ]
    return float(np.mean(pairs)) if pairs else 0.0


def reduce_logits(name, f, y, p):
    """Losses [B] from logits, without what a regulariser adds."""
    f_y = f[np.arange(len(y)), y]
    if name == "uniface":
        negative = softplus(f).sum(axis=1) - softplus(f_y)
        return softplus(-f_y) + p.get("negative_weight", 1.0) * negative
    if name == "sphereface2":
        alpha, weight, r = p.get("alpha", 0.7), p.get("loss_weight", 10.0), p.get("scale", 40.0)
        negative = softplus(f).sum(axis=1) - softplus(f_y)
        return weight / r * (alpha * softplus(-f_y) + (1 - alpha) * negative)
    loss = np.logaddexp.reduce(f, axis=1) - f_y
    if name == "sphereface_r" and p.get("scale", 60.0) is not None:
        loss = loss * p.get("loss_weight", 50.0) / p.get("scale", 60.0)
    return loss


def regularizer(name, x, prototypes, y, p):
    """What is added to the losses."""
    if name == "sphereface_plus":
        return p.get("mhe_weight", 0.1) * energy(prototypes, y)
    if name == "magface":
        a = np.clip(np.linalg.norm(x, axis=1), 10, 110)
        return np.asarray(p.get("norm_weight", 35.0)) * (a / 110**2 + 1 / a)
    return 0.0


def losses(name, x, prototypes, y, frozen=None, **p):
    """Losses [B]."""
    f = logits(name, x, prototypes, y, frozen, **p)
    return reduce_logits(name, f, y, p) + regularizer(name, x, prototypes, y, p)


def finite_differences(function, value, step=1e-6):
    """Gradient of a scalar function of an array, by central differences."""
    gradient = np.empty_like(value)
    for index in np.ndindex(value.shape):
        moved = [value.copy(), value.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        gradient[index] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return gradient


def gradients(name, x, prototypes, y, frozen=None, **p):
    """Gradients of the sum of the losses by embeddings and prototypes."""
    return (
        finite_differences(lambda v: losses(name, v, prototypes, y, frozen, **p).sum(), x),
        finite_differences(lambda v: losses(name, x, v, y, frozen, **p).sum(), prototypes),
    )


def caffe_gradients(x, prototypes, y, m, lam):
    """The authors' layer: gradients by embeddings and by (unit) prototypes."""
    f = logits("sphereface", x, prototypes, y, margin=m, annealing_lambda=lam)
    slopes = np.exp(f - np.logaddexp.reduce(f, axis=1, keepdims=True))
    slopes[np.arange(len(y)), y] -= 1
    w = unit(prototypes)
    by_x = slopes @ w
    for i, label in enumerate(y):
        norm = np.linalg.norm(x[i])
        c = np.clip(unit(x)[i] @ w[label], -1, 1)
        coefficient_w = psi_slope(c, m)
        coefficient_x = (psi(c, m) - c * coefficient_w) / norm
        v = coefficient_w * w[label] + coefficient_x * x[i]
        v = v / math.sqrt(coefficient_w**2 + coefficient_x**2)
        by_x[i] += slopes[i, label] * ((v + lam * w[label]) / (1 + lam) - w[label])
    return by_x, slopes.T @ x


def detached_gradients(name, x, prototypes, y, frozen=None, **p):
    """As `gradients`, of logits s·(c + k) + b with k, what the margin adds, held fixed."""
    scale = p.get("scale", SCALES.get(name, 64.0))
    b = {"sphereface2": 1, "uniface": -1}.get(name, 0) * bias_of(frozen)

    def lengths(x):
        return np.linalg.norm(x, axis=1, keepdims=True) if scale is None else scale

    f = logits(name, x, prototypes, y, frozen, **p)
    k = (f - b) / lengths(x) - cosines(x, prototypes)

    def total(x, prototypes):
        f = lengths(x) * (cosines(x, prototypes) + k) + b
        return (reduce_logits(name, f, y, p) + regularizer(name, x, prototypes, y, p)).sum()

    return (
        finite_differences(lambda v: total(v, prototypes), x),
        finite_differences(lambda v: total(x, v), prototypes),
    )


def sphereface2_bias(num_classes, variant="C", m=None, alpha=0.7, r=40.0, t=3.0):
    """The bias at which the loss is least while all angles are right ones, by bisection.

    The loss of one example is α softplus(−(a_y + b)) + (1 − α)(K − 1) softplus(a_j + b).
    """
    m = {"C": 0.4, "A": 0.5, "M": 1.7}[variant] if m is None else m
    right = similarity(0.0, t)
    a_y, a_j = {
        "C": (r * (right - m), r * (right + m)),
        "A": (r * similarity(math.cos(min(PI / 2 + m, PI)), t), r * right),
        "M": (r * similarity(math.cos(min(PI / 2 * m, PI)), t), r * right),
    }[variant]

    def slope(b):
        sigmoid = np.exp(-softplus(-np.array([-(a_y + b), a_j + b])))
        return (1 - alpha) * (num_classes - 1) * sigmoid[1] - alpha * sigmoid[0]

    low, high = -1e4, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return low
