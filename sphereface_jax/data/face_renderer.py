"""A face painted from three integers: seed and identity say who, the view says how it is seen.

Randomness is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011):
the seed is the key of a Philox generator and (identity, view) its counter, so that any image of
any identity is drawn directly, without tables, files or an order of drawing. The parameters of a
person come from one such stream, everything that changes from view to view from another.

The picture is made as a painter would: background, hair, head, features, whatever is in the way;
then light, blur and noise. Curves are drawn at the target resolution, antialiased, in sixteenths
of a pixel.
"""

import math
import operator
from collections.abc import Sequence
from types import SimpleNamespace

import cv2
import numpy as np

from sphereface_jax._checks import require
from sphereface_jax.data.face_shape import (
    EXPRESSION,
    IDENTITY_SHAPE,
    WHERE,
    face_points,
    project,
)

Colour = Sequence[float]

REFERENCE_SIZE = (112, 96)  # the image, height and width, whose pixels are the units of length
SUBPIXEL_BITS = 4

# Colours and markings of a person, each uniform in its range.
_IDENTITY_APPEARANCE = {
    "melanin": (0.0, 1.0),
    "skin_red": (0.94, 1.06),
    "skin_blue": (0.9, 1.1),
    "hair_shade": (0.0, 1.0),
    "hair_light": (0.75, 1.25),
    "iris_shade": (0.0, 1.0),
    "lip_red": (0.1, 0.75),
    "brow_weight": (0.45, 1.0),
    "beard": (-0.9, 0.9),
    "moustache": (-0.9, 0.9),
    "lid_shadow": (0.0, 0.45),
    "bag_shadow": (0.0, 0.3),
    "fold": (-0.25, 0.4),
    "mole": (-0.6, 0.9),
}

# How a person is seen, each uniform in its range. Lengths are pixels of the reference image.
_VIEW = {
    "yaw": (-0.45, 0.45),
    "pitch": (-0.25, 0.25),
    "roll": (-0.2, 0.2),
    "scale": (0.88, 1.12),
    "shift_x": (-5.0, 5.0),
    "shift_y": (-5.0, 5.0),
    "light_angle": (0.0, 2.0 * math.pi),
    "light_offset": (-0.6, 0.6),
    "light_sharpness": (0.5, 3.0),
    "light_contrast": (0.0, 0.45),
    "gain": (0.7, 1.25),
    "cast_red": (-0.18, 0.18),
    "cast_blue": (-0.18, 0.18),
    "blur": (-0.3, 1.2),
    "noise": (0.02, 0.12),
    "occluder": (0.0, 1.0),
    "occluder_x": (-30.0, 30.0),
    "occluder_y": (-40.0, 50.0),
    "occluder_angle": (0.0, math.pi),
    "occluder_size": (5.0, 11.0),
    "clutter_x": (-60.0, 60.0),
    "clutter_y": (-60.0, 60.0),
    "clutter_size": (8.0, 40.0),
}
_IDENTITY_NAMES = (*IDENTITY_SHAPE, *_IDENTITY_APPEARANCE)
_VIEW_NAMES = (*EXPRESSION, *_VIEW)
_NUM_NAMED_COLOURS = 3  # shirt, occluder and clutter; the others blend into the backdrop
_NUM_FREE_COLOURS = _NUM_NAMED_COLOURS + 9
_PERSON, _SIGHT = 0, 1  # streams of random numbers


def _ranges(*tables: dict[str, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.array([bounds for table in tables for bounds in table.values()]).T
    return low, high - low


_IDENTITY_LOW, _IDENTITY_SPAN = _ranges(IDENTITY_SHAPE, _IDENTITY_APPEARANCE)
_VIEW_LOW, _VIEW_SPAN = _ranges(EXPRESSION, _VIEW)

_SKIN = ((250, 218, 196), (228, 180, 148), (192, 138, 102), (138, 90, 62), (84, 54, 40))
_HAIR = ((26, 22, 22), (72, 46, 30), (128, 62, 34), (206, 164, 96), (168, 164, 160))
_IRIS = ((58, 36, 24), (104, 72, 34), (92, 116, 66), (74, 116, 164), (128, 138, 148))
_DARK = (24.0, 16.0, 16.0)
_WHITE = (238.0, 234.0, 230.0)


def _generator(seed: int, stream: int, identity: int, view: int) -> np.random.Generator:
    """Philox keyed by (seed, stream) and started at (identity, view)."""
    key, counter = stream << 64 | seed, identity << 128 | view << 64
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _mix(first: Colour, second: Colour, weight: float) -> Colour:
    return tuple(a + weight * (b - a) for a, b in zip(first, second, strict=True))


def _scaled(colour: Colour, factor: float) -> Colour:
    return tuple(channel * factor for channel in colour)


def _along(palette: Sequence[Colour], position: float) -> Colour:
    """The colour at `position` in [0, 1] of a palette laid out evenly."""
    step = min(int(position * (len(palette) - 1)), len(palette) - 2)
    return _mix(palette[step], palette[step + 1], position * (len(palette) - 1) - step)


class _Painter:
    """Fills and strokes curves given in reference pixels around the middle of a canvas."""

    def __init__(self, canvas: np.ndarray):
        self.canvas = canvas
        height, width = canvas.shape[:2]
        self.unit = min(height / REFERENCE_SIZE[0], width / REFERENCE_SIZE[1])
        self.middle = np.array([width / 2 - 0.5, height / 2 - 0.5])

    def fixed(self, points: np.ndarray) -> np.ndarray:
        """Points in reference pixels as OpenCV's fixed-point pixels of this canvas."""
        return np.rint((points * self.unit + self.middle) * (1 << SUBPIXEL_BITS)).astype(np.int32)

    def pose(self, points: np.ndarray) -> None:
        """Sets the face's points [N, 2] that `fill` and `stroke` name."""
        self.points = self.fixed(points)

    def fill(self, colour: Colour, *curves: str) -> None:
        polygons = [self.points[WHERE[name]] for name in curves]
        cv2.fillPoly(self.canvas, polygons, colour, cv2.LINE_AA, SUBPIXEL_BITS)

    def stroke(self, colour: Colour, width: float, *curves: str, closed: bool = False) -> None:
        lines = [self.points[WHERE[name]] for name in curves]
        thickness = max(1, round(width * self.unit))
        cv2.polylines(self.canvas, lines, closed, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

    def capsule(self, colour: Colour, start: np.ndarray, end: np.ndarray, width: float) -> None:
        """A thick line with round ends."""
        first, last = self.fixed(np.stack([start, end])).tolist()
        thickness = max(1, round(width * self.unit))
        cv2.line(self.canvas, first, last, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _paint_head(painter: _Painter, who: SimpleNamespace, skin: Colour, hair: Colour) -> None:
    painter.fill(_scaled(skin, 0.92), "ear_left", "ear_right")
    painter.fill(skin, "face")
    if who.fold > 0:
        painter.stroke(_scaled(skin, 1.0 - who.fold), 1.0, "fold_left", "fold_right")
    if who.beard > 0:
        painter.fill(_mix(skin, hair, 0.15 + who.beard), "beard")
    if who.moustache > 0:
        painter.fill(_mix(skin, hair, 0.15 + who.moustache), "moustache")
    if who.mole > 0:
        painter.fill(_mix(skin, (60.0, 32.0, 24.0), 0.3 + 0.7 * who.mole), "mole")


def _paint_eyes(painter: _Painter, who: SimpleNamespace, skin: Colour, hair: Colour) -> None:
    painter.fill(_WHITE, "eye_left", "eye_right")
    painter.fill(_along(_IRIS, who.iris_shade), "iris_left", "iris_right")
    painter.fill(_DARK, "pupil_left", "pupil_right")
    # The lids cut the iris off; what lies under them is never seen.
    painter.fill(_scaled(skin, 1.0 - who.lid_shadow), "lid_left", "lid_right")
    painter.fill(_scaled(skin, 1.0 - who.bag_shadow), "bag_left", "bag_right")
    painter.stroke(_mix(skin, _DARK, 0.8), 1.0, "lash_left", "lash_right")
    painter.fill(_mix(skin, _scaled(hair, 0.7), who.brow_weight), "brow_left", "brow_right")


def _paint_nose_and_mouth(
    painter: _Painter, who: SimpleNamespace, how: SimpleNamespace, skin: Colour
) -> None:
    shade = 0.12 * math.cos(how.light_angle)
    painter.fill(_scaled(skin, 0.94 - shade), "nose_left")
    painter.fill(_scaled(skin, 0.94 + shade), "nose_right")
    painter.fill(_scaled(skin, 1.06), "nose_tip")
    painter.fill(_scaled(skin, 0.4), "nostril_left", "nostril_right")
    lips = _mix(_scaled(skin, 0.85), (176.0, 52.0, 62.0), who.lip_red)
    painter.fill(lips, "lips")
    painter.fill((52.0, 18.0, 20.0), "mouth")
    painter.fill(_WHITE, "teeth")
    painter.stroke(_scaled(lips, 0.5), 1.0, "mouth_line")


def _paint_occluder(painter: _Painter, how: SimpleNamespace, skin: Colour, free: Colour) -> None:
    """Something in the way in 38 % of views: glasses, sunglasses, a hat, a bar or a hand."""
    kind = how.occluder
    place = np.array([how.occluder_x, how.occluder_y])
    along = np.array([math.cos(how.occluder_angle), math.sin(how.occluder_angle)])
    if kind < 0.13:
        painter.stroke(_scaled(free, 0.5), 2.0, "frame_left", "frame_right", closed=True)
        painter.stroke(_scaled(free, 0.5), 2.0, "bridge")
    elif kind < 0.17:
        painter.fill(_scaled(free, 0.3), "frame_left", "frame_right")
        painter.stroke(_scaled(free, 0.3), 2.0, "bridge")
    elif kind < 0.24:
        painter.fill(free, "hat")
    elif kind < 0.31:
        painter.capsule(free, place - 90.0 * along, place + 90.0 * along, how.occluder_size)
    elif kind < 0.38:
        across = np.array([-along[1], along[0]])
        hand = _scaled(skin, 0.9)
        for finger in (-1.5, -0.5, 0.5, 1.5):
            root = place + 5.5 * finger * across
            painter.capsule(hand, root, root + 20.0 * along, 5.0)
        painter.capsule(hand, place - 12.0 * along, place - 2.0 * along, 18.0)


def _paint(
    painter: _Painter, who: SimpleNamespace, how: SimpleNamespace, colours: list[list[float]]
) -> None:
    """Paints from the back to the front."""
    shirt, occluder, clutter = colours
    red, green, blue = _along(_SKIN, who.melanin)
    skin = (red * who.skin_red, green, blue * who.skin_blue)
    hair = _scaled(_along(_HAIR, who.hair_shade), who.hair_light)
    spot = np.array([how.clutter_x, how.clutter_y])
    painter.capsule(clutter, spot, spot + 30.0, how.clutter_size)
    painter.fill(hair, "hair_back")
    painter.fill(_scaled(skin, 0.8), "neck")
    painter.fill(shirt, "shirt")
    _paint_head(painter, who, skin, hair)
    _paint_eyes(painter, who, skin, hair)
    _paint_nose_and_mouth(painter, who, how, skin)
    painter.fill(_scaled(hair, 1.1), "hair_front")
    _paint_occluder(painter, how, skin, occluder)


def _muted(uniform: np.ndarray) -> np.ndarray:
    """Colours [n, 3] that keep less than half of their saturation, out of numbers in [0, 1)."""
    grey = uniform.mean(axis=-1, keepdims=True)
    return 255.0 * (grey + 0.4 * (uniform - grey))


def _backdrop(size: tuple[int, int], colours: np.ndarray) -> np.ndarray:
    """Nine colours blended smoothly; bytes [height, width, 3]."""
    height, width = size
    patches = colours.reshape(3, 3, 3).astype(np.uint8)
    return cv2.resize(patches, (width, height), interpolation=cv2.INTER_LINEAR)


_GRID_Y, _GRID_X = np.mgrid[-1.0:1.0:12j, -1.0:1.0:10j]


def _light(image: np.ndarray, how: SimpleNamespace) -> np.ndarray:
    """Multiplies by a smooth edge between light and shade, and by the light's colour."""
    across = _GRID_X * math.cos(how.light_angle) + _GRID_Y * math.sin(how.light_angle)
    edge = np.tanh(how.light_sharpness * (across - how.light_offset))
    field = how.gain * (1.0 + how.light_contrast * edge)
    cast = np.array([1.0 + how.cast_red, 1.0, 1.0 + how.cast_blue])
    coarse = (field[..., None] * cast).astype(np.float32)
    height, width = image.shape[:2]
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(image, fine, dtype=cv2.CV_8U)


def _camera(image: np.ndarray, how: SimpleNamespace, unit: float, noise: bytes) -> np.ndarray:
    """Blur, then noise that is uniform on each channel."""
    if how.blur * unit > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), how.blur * unit)
    grain = np.frombuffer(noise, np.uint8).reshape(image.shape)
    return cv2.addWeighted(image, 1.0, grain, how.noise, -127.5 * how.noise)


def person_parameters(seed: int, identity: int) -> np.ndarray:
    """What makes a person.

    Args:
      seed: of the set of people.
      identity: which of them, from 0.

    Returns:
      float64 [K], first the shape, in the order of `IDENTITY_SHAPE`, then the colours.
    """
    uniform = _generator(seed, _PERSON, identity, 0).random(len(_IDENTITY_NAMES))
    return _IDENTITY_LOW + _IDENTITY_SPAN * uniform


def render_face(
    seed: int, identity: int, view: int, image_size: tuple[int, int] = REFERENCE_SIZE
) -> np.ndarray:
    """Paints one view of one synthetic person.

    A pure function: equal arguments give equal bytes, in any process, thread or order.

    Args:
      seed: which world of identities; 0 ≤ seed < 2⁶⁴.
      identity: who; 0 ≤ identity < 2⁶⁴.
      view: which picture of them; 0 ≤ view < 2⁶⁴.
      image_size: height and width in pixels. The face fills the largest 112:96 rectangle.

    Returns:
      uint8 [height, width, 3], RGB.

    Raises:
      ValueError: an integer out of range, or an image smaller than 8×8.

    Example:
      >>> render_face(0, 42, 7).shape
      (112, 96, 3)
    """
    # A NumPy integer would overflow where the counter is put together.
    seed, identity, view = (operator.index(value) for value in (seed, identity, view))
    for name, value in (("seed", seed), ("identity", identity), ("view", view)):
        require(0 <= value < 1 << 64, name, "an integer in [0, 2**64)", value)
    require(min(image_size) >= 8, "image_size", "at least (8, 8) pixels", image_size)

    person = person_parameters(seed, identity)
    rng = _generator(seed, _SIGHT, identity, view)
    scene = _VIEW_LOW + _VIEW_SPAN * rng.random(len(_VIEW_NAMES))
    colours = _muted(rng.random((_NUM_FREE_COLOURS, 3)))
    who = SimpleNamespace(**dict(zip(_IDENTITY_NAMES, person.tolist(), strict=True)))
    how = SimpleNamespace(**dict(zip(_VIEW_NAMES, scene.tolist(), strict=True)))

    painter = _Painter(_backdrop(image_size, colours[_NUM_NAMED_COLOURS:]))
    painter.pose(
        project(
            face_points(np.concatenate([person[: len(IDENTITY_SHAPE)], scene[: len(EXPRESSION)]])),
            yaw=how.yaw,
            pitch=how.pitch,
            roll=how.roll,
            scale=how.scale,
            centre=(how.shift_x, how.shift_y),
        )
    )
    _paint(painter, who, how, colours[:_NUM_NAMED_COLOURS].tolist())
    lit = _light(painter.canvas, how)
    return _camera(lit, how, painter.unit, rng.bytes(lit.size))
