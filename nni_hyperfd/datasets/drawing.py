"""What the pictures of the synthetic domains are made of, drawn with OpenCV: faces, other things and backgrounds.

Colours are (blue, green, red), each 0 to 255. Points are float64 arrays (n, 2) of (x, y) in canvas pixels, or in the
units of a `Pose`: u to the right and v down, where the oval of the face spans [-1, 1] in both, from hair line to chin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]
Colour = tuple[float, float, float]

_SHIFT = 4  # fractional bits of the coordinates handed to OpenCV
_BLACK = (20, 16, 16)
_SKINS = [(150, 190, 240), (125, 170, 225), (100, 145, 205), (70, 110, 175), (50, 80, 130), (35, 55, 95)]
_HAIRS = [(20, 20, 25), (30, 45, 70), (40, 75, 120), (90, 160, 200), (150, 150, 155), (30, 50, 140)]
_MASKS = [(205, 180, 130), (235, 235, 235), (45, 40, 40), (150, 130, 200)]
_TOON_SKINS = [(80, 220, 250), (120, 200, 90), (230, 170, 80), (190, 110, 200), (90, 140, 250), (200, 190, 250)]
_TOON_COLOURS = [(60, 60, 230), (230, 120, 40), (60, 200, 90), (40, 200, 245), (200, 80, 170), (220, 220, 90)]
_TOON_WALLS = [(240, 210, 150), (190, 240, 200), (170, 200, 250), (240, 190, 220)]


class Canvas:
    """A square image with, for every pixel, the number of the face that is visible there.

    Args:
        side: width and height in px.

    Attributes:
        image: (side, side, 3) uint8, BGR.
        labels: (side, side) uint8; 0 where there is no face.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.image = np.zeros((side, side, 3), np.uint8)
        self.labels = np.zeros((side, side), np.uint8)

    def fill(self, points: Points, colour: Colour, line: float = 0.0, label: int | None = None) -> None:
        """Fill a polygon.

        Args:
            points: its corners (n, 2), in canvas px.
            colour: of the area.
            line: width in px of a black outline; 0 for none.
            label: what to write into `labels` there; None leaves them as they are.
        """
        fixed = _fixed(points)
        cv2.fillPoly(self.image, [fixed], _integers(colour), cv2.LINE_AA, _SHIFT)
        if line:
            self.line(points, _BLACK, line, closed=True)
        if label is not None:
            cv2.fillPoly(self.labels, [fixed], (label,), cv2.LINE_8, _SHIFT)

    def line(self, points: Points, colour: Colour, width: float, closed: bool = False) -> None:
        """Draw a line through points (n, 2), `width` px wide; with `closed`, back to the first point."""
        thickness = max(1, round(width))
        cv2.polylines(self.image, [_fixed(points)], closed, _integers(colour), thickness, cv2.LINE_AA, _SHIFT)


@dataclass(frozen=True)
class Pose:
    """Where a thing is on the canvas, and how it is turned.

    Attributes:
        x: centre, in px from the left.
        y: centre, in px from the top.
        half_width: half its width in px.
        half_height: half its height in px.
        roll: turn within the picture in radians.
        yaw: turn of a head to the side in radians.
        pitch: turn of a head up or down in radians.
    """

    x: float
    y: float
    half_width: float
    half_height: float
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0

    def at(self, points: ArrayLike) -> Points:
        """Convert points (n, 2) from pose units to canvas px."""
        u, v = np.asarray(points, np.float64).reshape(-1, 2).T * [[self.half_width], [self.half_height]]
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        return np.stack([self.x + cos * u - sin * v, self.y + sin * u + cos * v], axis=1)

    def on_head(self, points: ArrayLike) -> Points:
        """Convert points (n, 2) on a round head, which is turned by yaw and pitch, to canvas px."""
        u, v = np.asarray(points, np.float64).reshape(-1, 2).T
        depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, None))
        u = u * math.cos(self.yaw) + depth * math.sin(self.yaw)
        v = v * math.cos(self.pitch) + depth * math.sin(self.pitch)
        return self.at(np.stack([u, v], axis=1))


@dataclass(frozen=True)
class DrawnFace:
    """A face on the canvas.

    Attributes:
        outline: (n, 2), in px.
        landmarks: (5, 2), in px: eyes, nose, corners of the mouth; of each pair the left one comes first.
    """

    outline: Points
    landmarks: Points


FacePainter = Callable[[Canvas, Pose, Generator, int], DrawnFace]
"""Draws a face at a pose and labels its pixels with a number."""
ThingPainter = Callable[[Canvas, Pose, Generator], None]
"""Draws a thing that is no face at a pose."""


def oval(centre: ArrayLike = (0, 0), radii: tuple[float, float] = (1, 1), power: float = 2, jaw: float = 0) -> Points:
    """Make a closed curve.

    Args:
        centre: (u, v).
        radii: along u and along v.
        power: 2 for an ellipse; the larger, the more rectangular.
        jaw: how much narrower the lower half becomes, 0 to 1.

    Returns:
        Its points (72, 2), in pose units.
    """
    u, v = np.asarray(centre, np.float64)
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    x, y = np.sin(angle), -np.cos(angle)
    x, y = (np.sign(part) * np.abs(part) ** (2 / power) for part in (x, y))
    x = x * (1 - jaw * np.clip(y, 0, 1) ** 2)
    return np.stack([u + radii[0] * x, v + radii[1] * y], axis=1)


# Faces


def photo_face(canvas: Canvas, pose: Pose, rng: Generator, number: int) -> DrawnFace:
    """Draw a shaded face of a human skin colour with hair, neck and clothes."""
    skin, hair = _jitter(rng, _pick(rng, _SKINS)), _jitter(rng, _pick(rng, _HAIRS))
    outline = pose.at(oval(jaw=rng.uniform(0.1, 0.3), power=rng.uniform(2, 2.3)))
    _body(canvas, pose, skin, _muted(rng))
    if rng.random() < 0.9:
        canvas.fill(pose.at(oval((0, -0.25), (rng.uniform(1.1, 1.25), rng.uniform(1.0, 1.2)))), hair, label=0)
        if rng.random() < 0.35:
            canvas.fill(pose.at(oval((0, 0.3), (rng.uniform(1.15, 1.35), 1.1), power=3)), hair, label=0)
    for side in (-1, 1):
        canvas.fill(pose.at(oval((side, 0), (0.14, 0.24))), _darker(skin, 0.85), label=0)
    canvas.fill(outline, skin, label=number)

    eyes, nose, mouth = _layout(rng)
    unit = pose.half_height
    for eye in eyes:
        canvas.fill(pose.on_head(oval(eye, (0.24, 0.15))), _darker(skin, 0.82))
        openness = rng.uniform(0.06, 0.1)
        canvas.fill(pose.on_head(oval(eye, (0.16, openness))), (225, 230, 235))
        canvas.fill(pose.on_head(oval((eye[0] + 0.02, eye[1]), (0.075, openness))), (40, 50, 60))
        brow = np.add(eye, [[-0.2, -0.14], [0, -0.2], [0.2, -0.14]])
        canvas.line(pose.on_head(brow), _darker(hair, 0.9), 0.07 * unit)
    bridge = np.add(nose, [[-0.04, -0.35], [-0.14, 0.02], [0, 0.07], [0.14, 0.02]])
    canvas.line(pose.on_head(bridge), _darker(skin, 0.72), 0.05 * unit)
    if rng.random() < 0.2:
        canvas.fill(pose.on_head(_lower_face(0.42)), _mixed(skin, hair, 0.6))
    _lips(canvas, pose, mouth, _mixed(skin, (70, 60, 190), 0.55), rng)
    if rng.random() < 0.15:
        _glasses(canvas, pose, eyes)
    _shade(canvas, pose, rng, canvas.labels == number)
    return DrawnFace(outline, pose.on_head([*eyes, nose, *mouth]))


def masked_face(canvas: Canvas, pose: Pose, rng: Generator, number: int) -> DrawnFace:
    """Draw a photo face, in nine of ten cases with a mask over nose, mouth and chin."""
    face = photo_face(canvas, pose, rng, number)
    if rng.random() < 0.9:
        colour = _jitter(rng, _pick(rng, _MASKS))
        top = rng.uniform(-0.05, 0.15)
        for side in (-1, 1):
            canvas.line(pose.at([[side * 0.7, top + 0.1], [side * 1.02, -0.1]]), colour, 0.05 * pose.half_height)
        # The mask stays within the outline, so that the box still ends at the chin.
        canvas.fill(pose.on_head(_lower_face(top)), colour)
        for fold in (0.35, 0.5, 0.65):
            canvas.line(pose.on_head([[-0.5, fold], [0, fold + 0.04], [0.5, fold]]), _darker(colour, 0.85), 1)
    return face


def cartoon_face(canvas: Canvas, pose: Pose, rng: Generator, number: int) -> DrawnFace:
    """Draw a flat, outlined face with large eyes, of a colour that no human has."""
    skin, hair, line = _pick(rng, _TOON_SKINS), _pick(rng, _TOON_COLOURS), max(2.0, 0.05 * pose.half_height)
    outline = pose.at(oval(power=rng.uniform(1.9, 4), jaw=rng.uniform(-0.1, 0.35)))
    shirt = _pick(rng, _TOON_COLOURS)
    canvas.fill(pose.at([[-0.4, 0.8], [0.4, 0.8], [1.1, 3], [-1.1, 3]]), shirt, line, label=0)
    style = rng.integers(3)
    if style == 0:
        canvas.fill(pose.at(_star(int(rng.integers(9, 14)), 0.95, 1.4) + [0, -0.2]), hair, line, label=0)
    elif style == 1:
        canvas.fill(pose.at(oval((0, -0.3), (1.2, 1.1), power=2.6)), hair, line, label=0)
    for side in (-1, 1):
        canvas.fill(pose.at(oval((side, 0.05), (0.22, 0.25))), skin, line, label=0)
    canvas.fill(outline, skin, line, label=number)
    if style == 2:
        canvas.fill(pose.at([[-0.9, -1], [0.9, -1], [0.5, -1.75], [-0.5, -1.75]]), hair, line, label=0)

    eyes, nose, mouth = _layout(rng, spread=rng.uniform(0.3, 0.4))
    size = rng.uniform(0.2, 0.32)
    for eye in eyes:
        canvas.fill(pose.on_head(oval(eye, (size, size * rng.uniform(1, 1.3)))), (250, 250, 250), line)
        canvas.fill(pose.on_head(oval((eye[0] + 0.05, eye[1] + 0.03), (0.09, 0.1))), _BLACK)
        canvas.line(pose.on_head(np.add(eye, [[-0.22, -0.38], [0.22, -0.42]])), _BLACK, 1.2 * line)
    canvas.fill(pose.on_head(oval(nose, (0.15, 0.13))), _mixed(skin, (60, 60, 230), 0.5), line)
    if rng.random() < 0.5:
        canvas.fill(pose.on_head(_smile(mouth, 0.28)), (60, 30, 130), line)
    else:
        canvas.line(pose.on_head(_arc(mouth, 0.2)), _BLACK, 1.3 * line)
    return DrawnFace(outline, pose.on_head([*eyes, nose, *mouth]))


def _layout(rng: Generator, spread: float = 0.4) -> tuple[Points, Points, Points]:
    """Eyes (2, 2), tip of the nose (2,) and corners of the mouth (2, 2), in pose units."""
    height, width = rng.uniform(-0.2, -0.05), rng.uniform(0.24, 0.36)
    nose, mouth = rng.uniform(0.18, 0.28), rng.uniform(0.5, 0.6)
    return (
        np.array([[-spread, height], [spread, height]]),
        np.array([0.0, nose]),
        np.array([[-width, mouth], [width, mouth]]),
    )


def _body(canvas: Canvas, pose: Pose, skin: Colour, shirt: Colour) -> None:
    upright = replace(pose, roll=0.3 * pose.roll)
    canvas.fill(upright.at(oval((0, 2.35), (2.0, 1.15), power=2.6)), shirt, label=0)
    canvas.fill(pose.at([[-0.45, 0.4], [0.45, 0.4], [0.55, 1.45], [-0.55, 1.45]]), _darker(skin, 0.75), label=0)


def _lower_face(top: float) -> Points:
    """Outline of the face from height `top` down to just above the chin."""
    curve = oval((0, 0), (0.95, 0.95), jaw=0.25)
    below = curve[curve[:, 1] > top]  # from the right cheek past the chin to the left one
    return np.concatenate([below, [[0.0, top - 0.1]]])


def _arc(mouth: Points, depth: float) -> Points:
    """A curve that sags between the two corners of a mouth."""
    share = np.linspace(0, 1, 12)[:, None]
    curve: Points = mouth[0] + share * (mouth[1] - mouth[0]) + [0, depth] * np.sin(np.pi * share)
    return curve


def _smile(mouth: Points, depth: float) -> Points:
    """Outline of an open mouth: a curve, and a flatter one above it."""
    return np.concatenate([_arc(mouth, depth), _arc(mouth, 0.15 * depth)[::-1]])


def _lips(canvas: Canvas, pose: Pose, mouth: Points, colour: Colour, rng: Generator) -> None:
    canvas.fill(pose.on_head(_smile(mouth, rng.uniform(0.1, 0.2))), colour)
    if rng.random() < 0.4:
        canvas.fill(pose.on_head(_smile(mouth * [0.75, 1] + [0, 0.02], 0.1)), (220, 225, 230))
    canvas.line(pose.on_head(mouth), _darker(colour, 0.5), 0.03 * pose.half_height)


def _glasses(canvas: Canvas, pose: Pose, eyes: Points) -> None:
    width = 0.05 * pose.half_height
    for eye in eyes:
        canvas.line(pose.on_head(oval(eye, (0.27, 0.2), power=3)), _BLACK, width, closed=True)
    canvas.line(pose.on_head([eyes[0] + [0.27, 0], eyes[1] - [0.27, 0]]), _BLACK, width)


# Things that are not faces


def ball(canvas: Canvas, pose: Pose, rng: Generator) -> None:
    """Draw a shaded ball, skin-coloured or bright, with a few dark spots that are not placed like eyes."""
    colour = _jitter(rng, _pick(rng, _SKINS)) if rng.random() < 0.5 else _colour(rng.uniform(30, 240, 3))
    canvas.fill(pose.at(oval()), colour, label=0)
    for _ in range(rng.integers(0, 4)):
        u, v = rng.uniform(-0.5, 0.5, 2)
        canvas.fill(pose.at(oval((u, v), (0.12, 0.1))), _darker(colour, 0.4))
    _shade(canvas, pose, rng)


def back_of_head(canvas: Canvas, pose: Pose, rng: Generator) -> None:
    """Draw a person who looks away: hair, ears, neck, clothes."""
    skin, hair = _jitter(rng, _pick(rng, _SKINS)), _jitter(rng, _pick(rng, _HAIRS))
    _body(canvas, pose, skin, _muted(rng))
    for side in (-1, 1):
        canvas.fill(pose.at(oval((side, 0), (0.14, 0.24))), skin, label=0)
    canvas.fill(pose.at(oval((0, -0.1), (1.05, 1.15))), hair, label=0)
    _shade(canvas, pose, rng)


def hand(canvas: Canvas, pose: Pose, rng: Generator) -> None:
    """Draw a skin-coloured palm with five fingers."""
    skin = _jitter(rng, _pick(rng, _SKINS))
    for index, angle in enumerate(np.linspace(-0.75, 0.6, 5)):
        tip = np.array([math.sin(angle), -math.cos(angle)]) * (1.15 if index else 0.85)
        canvas.line(pose.at(np.stack([[0, 0.2], tip])), skin, 0.3 * pose.half_width)
        canvas.line(pose.at(np.stack([tip * 0.6, tip * 0.62])), _darker(skin, 0.75), 2)
    canvas.fill(pose.at(oval((0, 0.4), (0.55, 0.55), power=3)), skin, label=0)
    canvas.fill(pose.at([[-0.3, 0.8], [0.3, 0.8], [0.35, 2], [-0.35, 2]]), _darker(skin, 0.9), label=0)


def window(canvas: Canvas, pose: Pose, rng: Generator) -> None:
    """Draw a lit window with a cross bar."""
    frame, glass = _darker(_muted(rng), 0.7), _colour(rng.uniform(130, 240, 3))
    width = 0.14 * pose.half_width
    canvas.fill(pose.at([[-1, -1], [1, -1], [1, 1], [-1, 1]]), glass, label=0)
    canvas.line(pose.at([[-1, -1], [1, -1], [1, 1], [-1, 1]]), frame, width, closed=True)
    canvas.line(pose.at([[0, -1], [0, 1]]), frame, width)
    canvas.line(pose.at([[-1, 0], [1, 0]]), frame, width)


def clock(canvas: Canvas, pose: Pose, rng: Generator) -> None:
    """Draw a clock: a pale oval with marks and two hands."""
    canvas.fill(pose.at(oval()), _colour(rng.uniform(40, 120, 3)), label=0)
    canvas.fill(pose.at(oval((0, 0), (0.88, 0.88))), (215, 225, 230))
    for angle in np.arange(12) * np.pi / 6:
        tip = np.array([math.sin(angle), math.cos(angle)])
        canvas.line(pose.at(np.stack([0.7 * tip, 0.8 * tip])), _BLACK, 0.06 * pose.half_width)
    for length in (0.4, 0.65):
        angle = rng.uniform(0, 2 * np.pi)
        tip = length * np.array([math.sin(angle), math.cos(angle)])
        canvas.line(pose.at(np.stack([[0, 0], tip])), _BLACK, 2)


def blob(canvas: Canvas, pose: Pose, rng: Generator) -> None:
    """Draw a balloon with the colours and shape of a cartoon face, but no face on it."""
    line = max(2.0, 0.05 * pose.half_height)
    canvas.line(pose.at([[0, 0.9], [0.15, 1.6], [-0.1, 2.4]]), _BLACK, line)
    canvas.fill(pose.at(oval(power=rng.uniform(1.9, 4))), _pick(rng, _TOON_SKINS), line, label=0)
    canvas.fill(pose.at(oval((-0.4, -0.45), (0.2, 0.15))), (250, 250, 250))


def flower(canvas: Canvas, pose: Pose, rng: Generator) -> None:
    """Draw petals around a yellow centre."""
    line = max(2.0, 0.05 * pose.half_height)
    petals = _star(int(rng.integers(7, 12)), 0.65, 1.0)
    canvas.fill(pose.at(petals), _pick(rng, _TOON_COLOURS), line, label=0)
    canvas.fill(pose.at(oval((0, 0), (0.5, 0.5))), (60, 200, 250), line)


def wheel(canvas: Canvas, pose: Pose, rng: Generator) -> None:
    """Draw a dark ring with a bright hub and spokes."""
    line = max(2.0, 0.05 * pose.half_height)
    canvas.fill(pose.at(oval()), (60, 55, 55), line, label=0)
    canvas.fill(pose.at(oval((0, 0), (0.6, 0.6))), _pick(rng, _TOON_COLOURS), line)
    for angle in np.arange(3) * np.pi / 3 + rng.uniform(0, 1):
        tip = np.array([math.sin(angle), math.cos(angle)]) * 0.6
        canvas.line(pose.at(np.stack([-tip, tip])), _BLACK, line)


def _star(points: int, inner: float, outer: float) -> Points:
    """A star with `points` outer corners, in pose units; `inner` and `outer` are the radii of its corners."""
    angle = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2, inner, outer)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


# Backgrounds


def photo_background(canvas: Canvas, rng: Generator) -> None:
    """Fill the canvas with coloured clouds of three scales, bars and blocks, out of focus."""
    field = np.zeros(canvas.image.shape, np.float32)
    for cells, strength in ((3, 70), (9, 35), (40, 12)):
        noise = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        noise = 0.3 * noise + 0.7 * noise.mean(axis=2, keepdims=True)
        field += cv2.resize(noise, (canvas.side, canvas.side), interpolation=cv2.INTER_CUBIC)
    canvas.image[:] = np.clip(field + _muted(rng), 0, 255)
    for _ in range(rng.integers(3, 12)):
        half_width, half_height = rng.uniform(0.03, 0.35, 2) * canvas.side
        x, y = rng.uniform(0, canvas.side, 2)
        pose = Pose(x, y, half_width, half_height, roll=rng.normal(0, 0.4))
        canvas.fill(pose.at(oval(power=rng.uniform(1.5, 12))), _muted(rng))
    sigma = rng.uniform(0.5, 5)
    canvas.image[:] = cv2.GaussianBlur(canvas.image, (0, 0), sigma)


def cartoon_background(canvas: Canvas, rng: Generator) -> None:
    """Fill the canvas with a flat colour, and rays, tiles, dots or hills of a second one."""
    side = canvas.side
    first, second = map(_colour, rng.permutation(_TOON_WALLS)[:2])
    canvas.image[:] = first
    style = rng.integers(4)
    if style == 0:
        for angle in np.arange(0, 2 * np.pi, np.pi / 6):
            tips = [[math.sin(angle + turn), math.cos(angle + turn)] for turn in (0, np.pi / 12)]
            canvas.fill(np.array([[0, 0], *tips]) * side + side / 2, second)
    elif style == 1:
        for line in np.arange(0.5, 8) * side / 8:
            canvas.line(np.array([[line, 0], [line, side]]), second, side / 50)
            canvas.line(np.array([[0, line], [side, line]]), second, side / 50)
    elif style == 2:
        for x, y in np.stack(np.meshgrid(np.arange(7), np.arange(7)), axis=-1).reshape(-1, 2):
            centre = (x + 0.5 * (y % 2) + 0.25) * side / 7, (y + 0.5) * side / 7
            canvas.fill(Pose(*centre, side / 35, side / 35).at(oval()), second)
    else:
        for height in (0.6, 0.75, 0.9):
            hill = Pose(rng.uniform(0, side), side * (height + 0.5), side * 0.9, side * 0.5)
            canvas.fill(hill.at(oval()), _darker(second, 1.35 - 0.5 * height), side / 150)


# Colours and light


def _shade(canvas: Canvas, pose: Pose, rng: Generator, mask: NDArray[np.bool_] | None = None) -> None:
    """Light a round thing from one side and roughen its surface, within `mask` (a face's pixels) or its ellipse."""
    reach = math.hypot(pose.half_width, pose.half_height) * 1.05
    left, top = (max(0, math.floor(centre - reach)) for centre in (pose.x, pose.y))
    right, bottom = (min(canvas.side, math.ceil(centre + reach)) for centre in (pose.x, pose.y))
    if left >= right or top >= bottom:
        return
    x, y = np.meshgrid(np.arange(left, right) - pose.x, np.arange(top, bottom) - pose.y)
    cos, sin = math.cos(pose.roll), math.sin(pose.roll)
    u, v = (cos * x + sin * y) / pose.half_width, (cos * y - sin * x) / pose.half_height
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0.02, None))
    light = np.array([rng.uniform(-0.9, 0.9), rng.uniform(-0.8, 0.2), rng.uniform(0.4, 1)])
    light /= np.linalg.norm(light)
    ambient = rng.uniform(0.25, 0.75)
    factor = ambient + 1.1 * (1 - ambient) * np.clip(light @ [u.ravel(), v.ravel(), depth.ravel()], 0, None)
    factor = factor.reshape(u.shape) * rng.normal(1, 0.03, u.shape)
    region = (slice(top, bottom), slice(left, right))
    inside = u**2 + v**2 < 1 if mask is None else mask[region]
    patch = canvas.image[region]
    patch[inside] = np.clip(patch[inside] * factor[inside][:, None], 0, 255)


def _pick(rng: Generator, colours: Sequence[Colour]) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _muted(rng: Generator) -> Colour:
    """A colour of walls, streets or clothes: of any brightness, rarely vivid."""
    colour = rng.uniform(15, 240, 3)
    return _mixed(_colour(colour), _colour(np.full(3, colour.mean())), rng.uniform(0.2, 0.95))


def _jitter(rng: Generator, colour: Colour) -> Colour:
    return _colour(np.clip(np.asarray(colour) * rng.uniform(0.85, 1.15) + rng.normal(0, 6, 3), 0, 255))


def _darker(colour: Colour, factor: float) -> Colour:
    return _colour(np.clip(np.asarray(colour) * factor, 0, 255))


def _mixed(first: Colour, second: Colour, share: float) -> Colour:
    """A mixture, of which `share` is the second colour."""
    return _colour((1 - share) * np.asarray(first) + share * np.asarray(second))


def _colour(values: NDArray[np.float64]) -> Colour:
    blue, green, red = map(float, values)
    return blue, green, red


def _fixed(points: Points) -> NDArray[np.int32]:
    """Coordinates in OpenCV's fixed-point numbers."""
    fixed: NDArray[np.int32] = np.round(points * 2**_SHIFT).astype(np.int32)
    return fixed


def _integers(colour: Colour) -> tuple[int, ...]:
    return tuple(map(int, colour))
