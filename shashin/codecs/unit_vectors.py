"""The length of vectors: what the log may hold, and scaling queries to it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LENGTH_TOLERANCE = 2.0**-10
"""How far from 1 the length of a stored vector may be.

Rounding to float16 changes a component by at most 2^-11 of itself (by at most 2^-25 if it is below
2^-14), so the length of a unit vector by at most 2^-11 and a little more. Twice that leaves room for
a producer that truncates instead of rounding, and for the arithmetic of its own scaling.
"""


def length_problem(vector: npt.NDArray[np.floating]) -> str | None:
    """Return why a vector, (dimensions,), is not of unit length, in words that follow "a vector"."""
    if not np.isfinite(vector).all():
        return "with values that are not finite"
    if not vector.any():
        return "that is all zeros"
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if abs(length - 1.0) > LENGTH_TOLERANCE:
        return f"of length {length:.6g}; expected 1, within {LENGTH_TOLERANCE:.2g}"
    return None


def unit_length(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the float32 rows, (n, dimensions), scaled to unit length; none may be zero."""
    # In float64 the squares of float32 values neither overflow nor underflow.
    wide = vectors.astype(np.float64)
    unit: npt.NDArray[np.float32] = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(
        np.float32
    )
    return unit


def as_stored(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Return vectors, (n, dimensions), as float16, the type of the log."""
    with np.errstate(over="ignore"):  # an infinite value is refused later, by photo
        return vectors.astype("<f2")
