"""A morphable face: outlines that are linear in named parameters, posed in space, flattened.

A face is a few closed curves (head, hair, eyes, brows, nose, mouth, ...) of N points in all. Each
point is linear in the parameters, as in a morphable model (Blanz and Vetter, 1999):

    points = mean + basis · parameters          [N, 3] = [N, 3] + [N, 3, K] [K]

so that one matrix product makes a face. The curves are written below as plain formulas of the
parameters; `_linearise` turns them into mean and basis once, at import.

The unit is the pixel of a 112×96 image; the origin is the middle of the face, x points right, y
down and z out of the picture. z lets yaw and pitch shift the features against the outline.
"""

import math
from types import SimpleNamespace

import numpy as np

# Parameters of the identity, each uniform in its range.
IDENTITY_SHAPE = {
    "face_width": (31.0, 39.0),
    "skull_height": (43.0, 50.0),
    "chin_height": (41.0, 55.0),
    "jaw": (-6.0, 7.0),
    "cheek": (-3.0, 4.0),
    "chin_point": (-3.0, 5.0),
    "ear_size": (4.0, 10.0),
    "ear_y": (-4.0, 6.0),
    "hair_top": (1.0, 14.0),
    "hair_side": (0.0, 12.0),
    "hair_length": (0.0, 62.0),
    "hair_lean": (-7.0, 7.0),
    "hair_curl": (-2.5, 2.5),
    "hairline": (20.0, 42.0),
    "hairline_temple": (-2.0, 22.0),
    "hairline_slant": (-9.0, 9.0),
    "widow_peak": (-4.0, 8.0),
    "sideburn": (-6.0, 32.0),
    "eye_x": (14.0, 19.5),
    "eye_y": (-10.0, -2.0),
    "eye_width": (5.0, 8.5),
    "eye_upper": (2.4, 5.6),
    "eye_lower": (1.2, 3.6),
    "eye_tilt": (-2.2, 2.2),
    "iris_radius": (2.4, 4.0),
    "crease": (0.8, 3.4),
    "brow_gap": (5.0, 11.0),
    "brow_width": (6.5, 11.0),
    "brow_thickness": (0.7, 3.0),
    "brow_arch": (-0.5, 4.5),
    "brow_tilt": (-3.0, 3.0),
    "brow_x": (-2.0, 2.5),
    "nose_y": (9.0, 19.0),
    "nose_width": (5.0, 11.5),
    "bridge_width": (1.6, 5.0),
    "nose_lift": (3.0, 12.0),
    "nostril": (1.0, 2.6),
    "nose_drop": (0.0, 4.0),
    "mouth_y": (25.0, 33.0),
    "mouth_width": (8.5, 16.0),
    "lip_upper": (1.0, 4.6),
    "lip_lower": (1.6, 6.0),
    "cupid_bow": (0.0, 2.4),
    "mouth_corner": (-2.5, 2.5),
    "beard_top": (14.0, 30.0),
    "mole_x": (-25.0, 25.0),
    "mole_y": (-24.0, 36.0),
    "mole_radius": (0.9, 2.2),
}

# Parameters of one view: the expression, and where accessories sit.
EXPRESSION = {
    "mouth_open": (0.0, 9.0),
    "smile": (-2.5, 4.5),
    "brow_raise": (-2.0, 3.5),
    "frown": (-1.5, 2.0),
    "blink": (0.0, 2.0),
    "gaze_x": (-2.0, 2.0),
    "gaze_y": (-1.0, 1.0),
    "brim": (18.0, 34.0),
    "frame": (9.0, 12.5),
}

Curves = dict[str, np.ndarray]


def _curve(
    x: np.ndarray | float,
    y: np.ndarray | float,
    *,
    lift: np.ndarray | float = 0.0,
    front: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Points [n, 4]: x, y, height above the head, and 1 on its front or 0 on its silhouette."""
    return np.stack(np.broadcast_arrays(x, y, lift, front), axis=-1).astype(np.float64)


def _ring(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A unit circle that starts at the top: x, and y pointing down."""
    angle = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
    return np.sin(angle), -np.cos(angle)


def _disc(x: float, y: float, radius: float, *, flat: float = 1.0, lift: float = 0.0) -> np.ndarray:
    across, down = _ring(12)
    return _curve(x + radius * across, y + flat * radius * down, lift=lift)


def _bump(t: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((t - centre) / width) ** 2))


def _between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The closed curve along `first` and back along `second`."""
    return np.concatenate([first, second[::-1]])


def _pair(name: str, right: np.ndarray) -> Curves:
    """A curve and its mirror image."""
    return {f"{name}_right": right, f"{name}_left": right * (-1.0, 1.0, 1.0, 1.0)}


def _head(p: SimpleNamespace) -> Curves:
    across, down = _ring(36)
    x = across * (
        p.face_width
        + p.jaw * _bump(down, 0.68, 0.25)
        + p.cheek * _bump(down, 0.15, 0.25)
        + 2.0 * _bump(down, -0.5, 0.4)
    )
    y = down * np.where(down < 0, p.skull_height, p.chin_height + 0.35 * p.mouth_open)
    y = y + p.chin_point * _bump(down, 1.0, 0.06)
    ear_across, ear_down = _ring(12)
    ear_x = p.face_width + 0.55 * p.ear_size * ear_across
    ear_y = p.ear_y + (3.0 + p.ear_size) * ear_down
    jaw = down > 0.12
    t = np.linspace(-1.0, 1.0, 9)
    cheeks = _curve(0.93 * t * (p.face_width + 0.3 * p.jaw), p.beard_top + 8.0 - 24.0 * t**2)
    return {
        "neck": _curve(
            np.array([-1.0, 1.0, 1.1, -1.1]) * (0.6 * p.face_width + 0.5 * p.jaw),
            np.array([20.0, 20.0, 90.0, 90.0]),
            front=0.0,
        ),
        "shirt": _curve(
            np.array([-60.0, -20.0, 0.0, 20.0, 60.0, 90.0, -90.0]),
            p.chin_height + np.array([12.0, 6.0, 13.0, 6.0, 12.0, 90.0, 90.0]),
            front=0.0,
        ),
        **_pair("ear", _curve(ear_x, ear_y, lift=-4.0, front=0.0)),
        "face": _curve(x, y, front=0.0),
        "beard": np.concatenate([_curve(x[jaw], y[jaw], front=0.0), cheeks]),
    }


def _hair(p: SimpleNamespace) -> Curves:
    angle = np.linspace(-0.53 * np.pi, 1.47 * np.pi, 44, endpoint=False)
    across, down = np.sin(angle), -np.cos(angle)
    curl = p.hair_curl * np.cos(9.0 * angle)
    x = across * (p.face_width + p.hair_side + curl) - p.hair_lean * np.minimum(down, 0.0)
    y = down * np.where(down < 0, p.skull_height + p.hair_top + curl, p.hair_length)
    crown = down < 0.1
    t = np.linspace(-1.0, 1.0, 17)
    hairline = (
        p.hairline_temple * t**2
        + p.hairline_slant * t
        + p.widow_peak * _bump(t, 0.0, 0.2)
        + (p.sideburn + 12.0) * t**12
        - p.hairline
    )
    inner = _curve(0.98 * p.face_width * t, hairline, front=1.0 - t**4)
    return {
        "hair_back": _curve(x, y, lift=-8.0, front=0.0),
        "hair_front": _between(_curve(x[crown], y[crown], front=0.0), inner),
    }


def _eyes(p: SimpleNamespace) -> Curves:
    t = np.linspace(-1.0, 1.0, 9)
    arc = 1.0 - t**2
    x = p.eye_x + p.eye_width * t
    tilt = p.eye_y - p.eye_tilt * t
    upper = _curve(x, tilt - (p.eye_upper - p.blink) * arc)
    lower = _curve(x, tilt + p.eye_lower * arc)
    lid = _curve(x, tilt - (3.6 + p.crease) * arc)
    bag = _curve(x, tilt + (4.4 + 0.4 * p.crease) * arc)
    pupil = p.eye_x + p.gaze_x, p.eye_y + p.gaze_y
    # Both pupils move the same way, so the left eye is not the mirror image of the right.
    left_pupil = p.gaze_x - p.eye_x, p.eye_y + p.gaze_y
    return {
        **_pair("eye", _between(upper, lower)),
        **_pair("lid", _between(lid, upper)),
        **_pair("bag", _between(lower, bag)),
        **_pair("lash", upper),
        "iris_right": _disc(*pupil, p.iris_radius),
        "iris_left": _disc(*left_pupil, p.iris_radius),
        "pupil_right": _disc(*pupil, 0.45 * p.iris_radius),
        "pupil_left": _disc(*left_pupil, 0.45 * p.iris_radius),
        **_pair("frame", _disc(p.eye_x, p.eye_y + 1.0, p.frame, flat=0.8, lift=5.0)),
        "bridge": _curve(
            np.array([1.0, -1.0]) * (p.eye_x - p.frame), np.full(2, p.eye_y), lift=6.0
        ),
    }


def _brows(p: SimpleNamespace) -> Curves:
    t = np.linspace(-1.0, 1.0, 8)
    middle = (
        p.eye_y
        - p.brow_gap
        - p.brow_raise
        - p.brow_arch * _bump(t, 0.25, 0.7)
        - p.brow_tilt * t
        - p.frown * t
    )
    half = 0.5 * p.brow_thickness * (1.15 - 0.7 * t) + 0.3
    x = p.eye_x + p.brow_x + p.brow_width * t
    return _pair("brow", _between(_curve(x, middle - half), _curve(x, middle + half)))


def _nose(p: SimpleNamespace) -> Curves:
    wing = p.nose_width
    tip = p.nose_y + p.nose_drop
    ridge = _curve(
        np.zeros(3),
        np.array([p.eye_y - 2.0, 0.5 * (p.eye_y + p.nose_y), tip]),
        lift=np.array([2.0, 2.0 + 0.5 * p.nose_lift, 2.0 + p.nose_lift]),
    )
    side = _curve(
        np.array([p.bridge_width, p.bridge_width, 0.85 * wing, wing, 0.5 * wing]),
        np.array([p.eye_y, 0.5 * (p.eye_y + p.nose_y), p.nose_y - 5.0, p.nose_y, tip + 0.5])
        + np.array([-2.0, 0.0, 0.0, 0.0, 0.0]),
        lift=np.array([0.0, 0.0, 0.0, 0.0, 0.5 * p.nose_lift]),
    )
    nostril = _disc(0.5 * wing, p.nose_y + 0.7, p.nostril, flat=0.6, lift=0.4 * p.nose_lift)
    tip_disc = _disc(0.0, p.nose_y - 2.5, 0.28 * wing, lift=2.0 + p.nose_lift)
    fold = _curve(
        np.array([wing + 1.0, 0.5 * (wing + p.mouth_width) + 4.0, p.mouth_width + 4.0]),
        np.array([p.nose_y - 1.0, 0.5 * (p.nose_y + p.mouth_y), p.mouth_y + 1.0]),
    )
    return {
        **_pair("nose", _between(ridge, side)),
        **_pair("nostril", nostril),
        "nose_tip": tip_disc,
        **_pair("fold", fold),
    }


def _mouth(p: SimpleNamespace) -> Curves:
    t = np.linspace(-1.0, 1.0, 13)
    arc = 1.0 - t**2
    x = t * (p.mouth_width + 0.5 * p.smile)
    line = p.mouth_y - (p.smile + p.mouth_corner) * (t**2 - 0.3)
    top = line - p.lip_upper * arc + p.cupid_bow * _bump(t, 0.0, 0.22)
    bottom = line + (p.mouth_open + p.lip_lower) * arc
    gap = _curve(x, line + p.mouth_open * arc)
    moustache = _curve(1.15 * x, p.nose_y + 3.0 + 6.0 * t**2)
    return {
        "moustache": _between(moustache, _curve(1.15 * x, line)),
        "lips": _between(_curve(x, top), _curve(x, bottom)),
        "mouth": _between(_curve(x, line), gap),
        "teeth": _between(_curve(x, line), _curve(x, line + 0.35 * p.mouth_open * arc)),
        "mouth_line": _curve(x, line),
    }


def _extras(p: SimpleNamespace) -> Curves:
    width = p.face_width
    return {
        "mole": _disc(p.mole_x, p.mole_y, p.mole_radius),
        "hat": _curve(
            np.array([-1.0, -0.9, 0.9, 1.0]) * (width + 14.0),
            np.array([-1.0, -90.0, -90.0, -1.0]) * np.array([p.brim, 1.0, 1.0, p.brim]),
            front=np.array([0.3, 0.0, 0.0, 0.3]),
        ),
    }


def _outlines(values: np.ndarray) -> Curves:
    p = SimpleNamespace(**dict(zip(SHAPE, values.tolist(), strict=True)))
    curves: Curves = {}
    for part in (_head, _hair, _eyes, _brows, _nose, _mouth, _extras):
        curves |= part(p)
    return curves


def _linearise() -> tuple[np.ndarray, np.ndarray, dict[str, slice]]:
    """Mean [3N], basis [3N, K], and where each curve lies among the N points."""
    count = len(SHAPE)
    at_zero = _outlines(np.zeros(count))
    where, start = {}, 0
    for name, points in at_zero.items():
        where[name] = slice(start, start + len(points))
        start += len(points)
    origin = np.concatenate(list(at_zero.values()))
    basis = np.stack(
        [np.concatenate(list(_outlines(row).values())) - origin for row in np.eye(count)], axis=-1
    )
    # The front of the average head is an ellipsoid; its depth is added once and for all.
    middle = np.mean(list(SHAPE.values()), axis=1)
    x, y, _, front = np.moveaxis(origin + basis @ middle, -1, 0)
    depth = 30.0 * np.sqrt(np.clip(1.0 - (x / 38.0) ** 2 - (y / 64.0) ** 2, 0.0, None))
    mean = origin[:, :3].copy()
    mean[:, 2] += front * depth
    return mean.ravel(), basis[:, :3].reshape(-1, count), where


SHAPE = IDENTITY_SHAPE | EXPRESSION
MEAN, BASIS, WHERE = _linearise()


def face_points(parameters: np.ndarray) -> np.ndarray:
    """The N points of a face in space.

    Args:
      parameters: [K] float64 in the order of `SHAPE`, in pixels of a 112×96 image.

    Returns:
      [N, 3] float64: x, y, z; the curve `name` is the rows `WHERE[name]`.
    """
    return (MEAN + BASIS @ parameters).reshape(-1, 3)


def project(
    points: np.ndarray,
    *,
    yaw: float,
    pitch: float,
    roll: float,
    scale: float,
    centre: tuple[float, float],
) -> np.ndarray:
    """Turns points by three angles and flattens them.

    Args:
      points: [N, 3].
      yaw: about the vertical axis, in radians.
      pitch: about the axis from ear to ear, in radians.
      roll: in the image's plane, in radians.
      scale: pixels per unit.
      centre: where the origin falls in the image, in pixels.

    Returns:
      [N, 2], across and down, in pixels.
    """
    sy, cy = math.sin(yaw), math.cos(yaw)
    sp, cp = math.sin(pitch), math.cos(pitch)
    sr, cr = math.sin(roll) * scale, math.cos(roll) * scale
    across = (cy, 0.0, sy)
    down = (sp * sy, cp, -sp * cy)
    camera = np.array(
        [
            [cr * a - sr * d for a, d in zip(across, down, strict=True)],
            [sr * a + cr * d for a, d in zip(across, down, strict=True)],
        ]
    )
    return points @ camera.T + centre
