"""From a face's box to 68 points, to five, to the upright crop that an embedding model was taught."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from faceward.errors import PackDamagedError
from faceward.types import BGRImage, Box
from faceward.vision.runtimes import InferenceSession

Points = NDArray[np.float32]
"""Shape (n, 2): x and y in pixels, pixel centres at whole numbers."""

ARCFACE_TEMPLATE: Final = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Where ArcFace models (Deng et al., 2019) expect eyes, nose tip and mouth corners in a crop of 112 x 112 pixels."""

_SIDE: Final = 64
# Each of the five points is the mean of these of the 68 (iBUG order): the eyelids, the nose tip, the mouth corners.
_LEFT_EYE: Final = (37, 38, 40, 41)
_RIGHT_EYE: Final = (43, 44, 46, 47)
_FIVE: Final = (_LEFT_EYE, _RIGHT_EYE, (30,), (48, 60), (54, 64))


def _mean_matrix() -> Points:
    matrix = np.zeros((5, 68), np.float32)
    for row, points in enumerate(_FIVE):
        matrix[row, list(points)] = 1.0 / len(points)
    return matrix


class LandmarkFinder:
    """The 68-point model: 1 x 1 x 64 x 64 grey / 256 to 68 points in 0..1 of a square around the face.

    It runs twice: on a square as high as the detector's box, then on the square around the points that gave. A square
    1.3 times the box loses faces. Raises PackDamagedError for a model of other shapes.
    """

    def __init__(self, session: InferenceSession) -> None:
        if session.input_shape != (1, 1, _SIDE, _SIDE) or session.output_shapes != ((1, 136),):
            raise PackDamagedError(
                f"The landmark model takes {session.input_shape} and gives {session.output_shapes}; "
                f"(1, 1, {_SIDE}, {_SIDE}) and ((1, 136),) are needed."
            )
        self._session = session

    def find(self, pixels: BGRImage, box: Box) -> Points:
        """The 68 points of the face in the box, in pixels of the image: best a small one around the face."""
        grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
        points = self._find_once(grey, (box.left + box.right) / 2, (box.top + box.bottom) / 2, box.height)
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return self._find_once(grey, (left + right) / 2, (top + bottom) / 2, max(1.0, right - left, bottom - top))

    def _find_once(self, grey: NDArray[np.uint8], x: float, y: float, side: float) -> Points:
        scale, left, top = _SIDE / side, x - side / 2, y - side / 2
        # Pixel centres lie half a pixel inside, in the image as in the square.
        matrix = np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])
        square = cv2.warpAffine(grey, matrix, (_SIDE, _SIDE))
        tensor = np.multiply(square, np.float32(1.0 / 256.0), dtype=np.float32)
        (output,) = self._session.run(tensor[np.newaxis, np.newaxis])
        points = output.reshape(68, 2)
        points *= side
        points += (left, top)
        return points


_MEAN_OF_68: Final = _mean_matrix()


def five_points(points: Points) -> Points:
    """Left eye, right eye, nose tip, left and right mouth corner (as the viewer sees them) of 68 points."""
    return _MEAN_OF_68 @ points


def similarity_transform(source: Points, target: Points) -> NDArray[np.float64]:
    """The 2 x 3 matrix of the turn, even scale and shift that brings source nearest to target by least squares.

    The closed form for the plane (Umeyama, 1991, without the mirror image). Raises ValueError where all the source
    points are one.
    """
    # For five points plain numbers are faster than arrays.
    points, aims = source.tolist(), target.tolist()
    sx, sy = _centre(points)
    tx, ty = _centre(aims)
    spread = along = across = 0.0
    for (x, y), (u, v) in zip(points, aims, strict=True):
        x, y, u, v = x - sx, y - sy, u - tx, v - ty
        spread += x * x + y * y
        along += x * u + y * v
        across += x * v - y * u
    if spread == 0.0:
        raise ValueError("The points to align are all one point.")
    cos, sin = along / spread, across / spread
    return np.array([[cos, -sin, tx - cos * sx + sin * sy], [sin, cos, ty - sin * sx - cos * sy]])


def _centre(points: list[list[float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def align(pixels: BGRImage, landmarks: Points, template: Points, size: tuple[int, int]) -> BGRImage:
    """The upright crop of a face: BGR uint8, size (width, height), black beyond the image's border.

    landmarks: five, in pixels of the image. template: where they belong in the crop.
    """
    return np.asarray(cv2.warpAffine(pixels, similarity_transform(landmarks, template), size), np.uint8)
