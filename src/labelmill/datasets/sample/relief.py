"""Pictures of small solid things: height fields lit by one lamp, and sprites laid onto a frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from labelmill.images import Image

Field = npt.NDArray[np.float32]
"""One value a pixel, shape (height_px, width_px), or three, shape (height_px, width_px, 3)."""

LIGHT = np.array([-0.42, -0.50, 0.76], dtype=np.float32)
"""Towards the lamp: from the upper left, as in every picture here (x right, y down, z to the camera)."""


@dataclass(frozen=True, eq=False)
class Sprite:
    """A thing to lay onto frames.

    Attributes:
        rgb: Colours multiplied by alpha, shape (height_px, width_px, 3), uint8.
        alpha: How much of the thing covers each pixel, shape (height_px, width_px), uint8.
        subject: Alpha of the part that ground truth boxes enclose (a hand without its sleeve), likewise.
        origin_xy: The pixel that `Placement.xy` puts somewhere.
        px_per_cm: Scale that it was drawn in.
    """

    rgb: Image
    alpha: npt.NDArray[np.uint8]
    subject: npt.NDArray[np.uint8]
    origin_xy: tuple[float, float]
    px_per_cm: float


def make_sprite(
    colour: Field,
    alpha: Field,
    origin_xy: tuple[float, float],
    px_per_cm: float,
    subject: Field | None = None,
) -> Sprite:
    """Round a drawing off to a sprite.

    Args:
        colour: RGB, 0 to 255, not multiplied, shape (h, w, 3).
        alpha: Coverage, 0 to 1, shape (h, w).
        origin_xy: See `Sprite`.
        px_per_cm: See `Sprite`.
        subject: Coverage of the part that truth boxes enclose; all of it if None.
    """
    rgb = np.clip(colour * alpha[..., None], 0, 255).astype(np.uint8)
    subject = alpha if subject is None else subject
    return Sprite(rgb, (alpha * 255).astype(np.uint8), (subject * 255).astype(np.uint8), origin_xy, px_per_cm)


def grid(
    width_px: int, height_px: int, origin_xy: tuple[float, float], px_per_cm: float
) -> tuple[Field, Field]:
    """Coordinates of every pixel in centimetres from the origin: x right, y down."""
    x = (np.arange(width_px, dtype=np.float32) - origin_xy[0]) / px_per_cm
    y = (np.arange(height_px, dtype=np.float32) - origin_xy[1]) / px_per_cm
    xx, yy = np.meshgrid(x, y)
    return xx.astype(np.float32), yy.astype(np.float32)


def noise(
    rng: np.random.Generator, shape: tuple[int, ...], sigma_px: float, *, along_px: float | None = None
) -> Field:
    """Smooth noise of mean 0 and deviation 1; `along_px` stretches its grain sideways.

    Args:
        rng: Where it comes from.
        shape: (height_px, width_px).
        sigma_px: Size of a grain.
        along_px: Its size sideways; the same if None.
    """
    height_px, width_px = shape
    shrink = max(1.0, sigma_px / 2)
    small = rng.standard_normal(
        (int(np.ceil(height_px / shrink)) + 2, int(np.ceil(width_px / shrink)) + 2), dtype=np.float32
    )
    blurred = cv2.GaussianBlur(
        small, (0, 0), (along_px or sigma_px) / shrink, sigmaY=max(0.3, sigma_px / shrink)
    )
    field = cv2.resize(blurred, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    deviation = float(field.std())
    return np.asarray((field - field.mean()) / max(deviation, 1e-6), dtype=np.float32)


def capsule(
    xx: Field,
    yy: Field,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radii: tuple[float, float],
) -> tuple[Field, Field]:
    """A round-ended bone between two points (x, y, z, in centimetres), its radius tapering.

    Returns:
        Signed distance to its outline in centimetres (negative inside), and the height of its upper surface.
    """
    ax, ay, az = start
    bx, by, bz = end
    dx, dy = bx - ax, by - ay
    length = max(dx * dx + dy * dy, 1e-6)
    t = np.clip(((xx - ax) * dx + (yy - ay) * dy) / length, 0, 1)
    distance = np.hypot(xx - (ax + t * dx), yy - (ay + t * dy))
    radius = radii[0] + (radii[1] - radii[0]) * t
    height = az + (bz - az) * t + np.sqrt(np.maximum(radius * radius - distance * distance, 0))
    return (distance - radius).astype(np.float32), height.astype(np.float32)


def rounded_box(xx: Field, yy: Field, half_wh: tuple[float, float], corner: float) -> Field:
    """Signed distance to a rectangle with round corners around the origin, in centimetres."""
    qx = np.abs(xx) - (half_wh[0] - corner)
    qy = np.abs(yy) - (half_wh[1] - corner)
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return np.asarray(outside + np.minimum(np.maximum(qx, qy), 0) - corner, dtype=np.float32)


def cover(distance: Field, px_per_cm: float) -> Field:
    """Coverage of each pixel, 0 to 1, from a signed distance in centimetres."""
    return np.asarray(np.clip(0.5 - distance * px_per_cm, 0, 1), dtype=np.float32)


def shade(
    height: Field, px_per_cm: float, *, ambient: float = 0.5, gloss: float = 0.0
) -> tuple[Field, Field]:
    """Light a height field.

    Args:
        height: Of the surface, in centimetres, shape (h, w).
        px_per_cm: Scale of the field.
        ambient: Light that comes from everywhere, 0 to 1.
        gloss: Strength of the highlight, 0 to 1.

    Returns:
        What to multiply colours by, about 1 on level ground, and what to add to them (0 to 255).
    """
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) * (px_per_cm / 8)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) * (px_per_cm / 8)
    norm = np.sqrt(1 + slope_x**2 + slope_y**2)
    facing = (-slope_x * LIGHT[0] - slope_y * LIGHT[1] + LIGHT[2]) / norm
    diffuse = ambient + (1 - ambient) * np.maximum(facing, 0) / LIGHT[2]
    if not gloss:
        return np.asarray(diffuse, dtype=np.float32), np.zeros_like(height)
    half = LIGHT + np.array([0, 0, 1], dtype=np.float32)
    half = half / np.linalg.norm(half)
    mirror = np.maximum((-slope_x * half[0] - slope_y * half[1] + half[2]) / norm, 0) ** 24
    return np.asarray(diffuse, dtype=np.float32), np.asarray(255 * gloss * mirror, dtype=np.float32)


@dataclass(frozen=True)
class Placement:
    """Where a sprite lies on the frame.

    Attributes:
        xy: Position of the sprite's origin, pixels of the frame.
        angle_rad: Clockwise as seen by the camera.
        px_per_cm: Scale to draw it in.
        mirror: Whether its left and right are swapped.
    """

    xy: tuple[float, float]
    angle_rad: float = 0.0
    px_per_cm: float = 1.0
    mirror: bool = False

    def matrix(self, sprite: Sprite, shift_xy: tuple[float, float] = (0.0, 0.0)) -> npt.NDArray[np.float64]:
        """Affine matrix from the sprite's pixels to the frame's, shape (2, 3)."""
        scale = self.px_per_cm / sprite.px_per_cm
        cos, sin = scale * np.cos(self.angle_rad), scale * np.sin(self.angle_rad)
        flip = -1.0 if self.mirror else 1.0
        linear = np.array([[cos * flip, -sin], [sin * flip, cos]])
        offset = np.array(self.xy) + np.array(shift_xy) - linear @ np.array(sprite.origin_xy)
        return np.column_stack([linear, offset])


def window(
    sprite: Sprite, matrix: npt.NDArray[np.float64], wh_px: tuple[int, int], pad_px: int
) -> tuple[int, int, int, int] | None:
    """The rectangle of the frame (x1, y1, x2, y2) that a moved sprite can touch; None if it is outside."""
    h, w = sprite.alpha.shape
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], dtype=np.float64) @ matrix.T
    x1, y1 = np.floor(corners.min(axis=0)).astype(int) - pad_px
    x2, y2 = np.ceil(corners.max(axis=0)).astype(int) + pad_px
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, wh_px[0]), min(y2, wh_px[1])
    return (int(x1), int(y1), int(x2), int(y2)) if x2 - x1 > 1 and y2 - y1 > 1 else None


def _warp(
    layer: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64], area: tuple[int, int, int, int]
) -> Image:
    moved = matrix.copy()
    moved[:, 2] -= area[:2]
    size = (area[2] - area[0], area[3] - area[1])
    return np.asarray(cv2.warpAffine(layer, moved, size, flags=cv2.INTER_LINEAR), dtype=np.uint8)


def streak(layer: npt.NDArray[np.uint8], motion_xy: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Blur a layer along the way that it moved while the shutter was open, in pixels."""
    length = float(np.hypot(*motion_xy))
    if length < 2:
        return layer
    size = int(np.ceil(length)) | 1
    kernel = np.zeros((size, size), dtype=np.float32)
    centre = size // 2
    reach = np.array(motion_xy) / length * (length / 2)
    start, end = np.array([centre, centre]) - reach, np.array([centre, centre]) + reach
    cv2.line(kernel, np.rint(start).astype(int).tolist(), np.rint(end).astype(int).tolist(), 1.0, 1)
    return np.asarray(cv2.filter2D(layer, -1, kernel / kernel.sum()), dtype=np.uint8)


def lay(
    frame: Image, sprite: Sprite, placement: Placement, *, motion_xy: tuple[float, float] = (0.0, 0.0)
) -> npt.NDArray[np.uint8] | None:
    """Lay a sprite onto a frame, in place.

    Returns:
        The subject's coverage on the whole frame, uint8, or None when the sprite is outside.
    """
    height_px, width_px = frame.shape[:2]
    matrix = placement.matrix(sprite)
    area = window(sprite, matrix, (width_px, height_px), pad_px=8)
    if area is None:
        return None
    x1, y1, x2, y2 = area
    rgb = streak(_warp(sprite.rgb, matrix, area), motion_xy)
    alpha = streak(_warp(sprite.alpha, matrix, area), motion_xy)
    under = frame[y1:y2, x1:x2]
    inverse = cv2.merge([255 - alpha] * 3)
    frame[y1:y2, x1:x2] = cv2.add(cv2.multiply(under, inverse, scale=1 / 255), rgb)
    subject = np.zeros((height_px, width_px), dtype=np.uint8)
    subject[y1:y2, x1:x2] = _warp(sprite.subject, matrix, area)
    return subject


def cast_shadow(
    frame: Image, sprite: Sprite, placement: Placement, *, lift_cm: float, strength: float = 0.5
) -> None:
    """Darken a frame, in place, where a thing keeps the lamp's light off; the higher, the softer."""
    height_px, width_px = frame.shape[:2]
    reach_px = (0.6 + lift_cm) * placement.px_per_cm
    shift = (float(-LIGHT[0] / LIGHT[2] * reach_px), float(-LIGHT[1] / LIGHT[2] * reach_px))
    matrix = placement.matrix(sprite, shift)
    sigma = 1.2 + 0.28 * reach_px
    area = window(sprite, matrix, (width_px, height_px), pad_px=int(3 * sigma))
    if area is None:
        return
    x1, y1, x2, y2 = area
    alpha = _warp(sprite.alpha, matrix, area)
    half = cv2.resize(alpha, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    half = cv2.GaussianBlur(half, (0, 0), sigma / 2, borderType=cv2.BORDER_CONSTANT)
    soft = cv2.resize(half, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
    strength = strength / (1 + 0.04 * lift_cm)
    keep = 255 - (soft * np.float32(strength)).astype(np.uint8)
    under = frame[y1:y2, x1:x2]
    frame[y1:y2, x1:x2] = cv2.multiply(under, cv2.merge([keep] * 3), scale=1 / 255)
