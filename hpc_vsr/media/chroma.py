"""Enlarges planes that no network enlarges, above all chroma: Lanczos interpolation that keeps them in place."""

from __future__ import annotations

import cv2
import numpy as np


def enlarge_plane(plane: np.ndarray, size: tuple[int, int], scale: int, subsampling: tuple[int, int] = (1, 1),
                  beside_left: bool = True) -> np.ndarray:
    """Enlarge a plane by Lanczos interpolation (a = 4); borders are replicated.

    Parameters
    ----------
    plane : (h, w) array, uint8, uint16 or float32
    size : (int, int)
        Rows and columns of the result.
    scale : int
    subsampling : (int, int)
        Luma pixels per pixel of this plane, in rows and in columns.
    beside_left : bool
        Whether a chroma pixel lies on the left one of its luma pixels, as in MPEG-2, H.264 and HEVC, instead of
        between them. The enlarged luma grid keeps its outer edge, so such chroma moves by a fraction of a pixel.

    Returns
    -------
    array of `size` and of the plane's type; integers are rounded and kept in range
    """
    by_row, by_column = (_affine(scale, 1), _affine(scale, subsampling[1] if beside_left else 1))
    matrix = np.float64([[by_column[0], 0, by_column[1]], [0, by_row[0], by_row[1]]])
    return cv2.warpAffine(plane, matrix, size[::-1], flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_REPLICATE)


def _affine(scale: int, subsampling: int) -> tuple[float, float]:
    """Return (slope, offset) of the map from a place in the large plane to the place in the small one."""
    return 1 / scale, (0.5 / scale - 0.5) / subsampling
