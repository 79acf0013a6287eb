"""An embedding as an array and as bytes: dtype, byte order, finiteness, dimension, checksum.

Stored bytes are float32, little-endian, without a header; their length gives the dimension. The checksum is
CRC-32 (as in `zlib.crc32`): it detects accidental corruption, not forgery.
"""

import math
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memstore.errors import DamagedError, DimensionError, EmbeddingError, short_repr
from memstore.models.records import Embedding
from memstore.vectors.space import MAX_DIMENSION

STORED = np.dtype("<f4")
_FLOAT32 = np.dtype(np.float32)
_NATIVE = sys.byteorder == "little"
checksum: Callable[[bytes], int] = zlib.crc32
"""CRC-32 of stored bytes, 0 to 2**32 - 1."""

_REMEDY = "Set a new embedding with update(), or None to drop it, or delete the record."


def as_embedding(value: object, dimension: int, *, allow_zero: bool, max_norm: float | None = None) -> Embedding:
    """*value* as the array that the store keeps: a read-only float32 copy, shape (dimension,).

    Args:
        value: a sequence of real numbers; they are rounded to float32.
        dimension: the expected length; 0 for any.
        allow_zero: False under cosine and spherical, where a zero vector has no direction.
        max_norm: largest Euclidean norm; None for no limit.

    Raises:
        DimensionError: the shape is not (dimension,).
        EmbeddingError: a component is not a real number, or is NaN, infinite or beyond float32; or all components are
            zero after rounding and *allow_zero* is False; or the norm exceeds *max_norm*.
    """
    array = value if type(value) is np.ndarray and value.dtype is _FLOAT32 else _rounded(value, dimension)
    if array.shape != (dimension,) and (dimension or array.ndim != 1 or not 0 < array.size <= MAX_DIMENSION):
        raise _shape_error(dimension, array.shape)
    data = array.tobytes()  # a copy, contiguous whatever the strides
    vector: Embedding = np.frombuffer(data, _FLOAT32)  # read-only for good, because bytes are
    # One product covers the usual case; it overflows and underflows long before float32 does. Of all ways to compute
    # it, only vdot emits no warning and avoids the cost of suppressing one.
    if not 1e-30 < float(np.vdot(vector, vector)) < 1e30:
        if not np.isfinite(vector).all():
            raise EmbeddingError(
                "Invalid embedding: it contains NaN, infinity, or a number beyond float32. Correct it or omit it."
            )
        if not allow_zero and not vector.any():
            raise EmbeddingError(
                "Invalid embedding: a zero vector has no direction, which the metrics cosine and spherical need. "
                "Omit it."
            )
    if max_norm is not None:
        _check_norm(vector, max_norm)
    return vector


def _check_norm(vector: Embedding, max_norm: float) -> None:
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if norm > max_norm:
        raise EmbeddingError(
            f"Embedding outside the Poincaré ball: expected norm at most {max_norm:.6g}, found {norm:.6g}. "
            "Map Euclidean vectors with memstore.vectors.into_ball(vectors, curvature)."
        )


def _shape_error(dimension: int, shape: tuple[int, ...]) -> DimensionError:
    if len(shape) == 1:
        return DimensionError(expected=dimension, got=shape[0])
    advice = "pass one row of it: x[0], or frame.iloc[0]" if len(shape) > 1 else "pass a vector, not one number"
    return DimensionError(expected=dimension, got=f"shape {shape}: {advice}")


def _advice(value: object) -> str:
    """What to call to make an array of a tensor that needs a gradient, is on a GPU, or is of a type of its own."""
    if hasattr(value, "detach"):
        return " This is a tensor: pass tensor.detach().cpu().float().numpy()."
    return " Convert it to a NumPy array of one dimension."


def _rounded(value: object, dimension: int) -> npt.NDArray[np.float32]:
    if isinstance(value, str | bytes | dict | set | frozenset) or value is None:
        raise EmbeddingError(f"Invalid embedding: expected a sequence of real numbers, found {type(value).__name__}.")
    array = _as_array(value, dimension)
    if array.size > MAX_DIMENSION:
        raise _shape_error(dimension, array.shape)  # before it is copied: a view can be of any size
    if array.size == 0:
        array = np.empty(array.shape)
    if array.dtype == object:
        # Python integers beyond 64 bits, decimals and fractions are real numbers too.
        try:
            array = np.array([float(x) for x in array.ravel()]).reshape(array.shape)
        except Exception as error:
            raise EmbeddingError("Invalid embedding: expected a sequence of real numbers within float32.") from error
    if array.dtype.kind not in "fiu":
        raise EmbeddingError(f"Invalid embedding: expected real numbers, found an array of {array.dtype}.")
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32)


def _as_array(value: object, dimension: int) -> npt.NDArray[Any]:
    """*value* as NumPy converts it, unless it is too large: NumPy follows nested lists to any depth."""
    try:
        if type(value) is list and len(value) == dimension and type(value[0]) in (float, int):
            return np.asarray(value)  # what most callers pass
        masked, shape = np.ma.is_masked(value), _shape(value)
        convertible = not masked and len(shape) < 3 and math.prod(shape) <= MAX_DIMENSION
        array = np.asarray(value) if convertible else None
    except ValueError as error:
        raise EmbeddingError(
            "Invalid embedding: expected one flat sequence of real numbers, found nested ones of unequal length."
        ) from error
    except Exception as error:
        raise EmbeddingError(
            f"Invalid embedding: expected a sequence of real numbers; reading this one raised {short_repr(error)}."
            f"{_advice(value)}"
        ) from error
    if masked:
        raise EmbeddingError("Invalid embedding: it contains masked numbers. Fill them in first.")
    if array is None:
        raise _shape_error(dimension, shape)
    return array


def _shape(value: object) -> tuple[int, ...]:
    """The shape of a nested sequence along its first elements, three levels deep; () for anything else."""
    if not isinstance(value, Sequence):
        return ()
    inner = value[0] if len(value) else None
    return (len(value), *(_shape(inner)[:2] if isinstance(inner, list | tuple) else ()))


def encode(vector: Embedding) -> bytes:
    """The stored bytes of *vector*. Arrays of `as_embedding` and `decode` are views of them: no copy is made."""
    if not _NATIVE:
        return vector.astype(STORED).tobytes()
    buffer: object = vector.base
    return buffer if type(buffer) is bytes and len(buffer) == vector.nbytes else vector.tobytes()


def decode(data: bytes, dimension: int, owner: str, crc: int | None) -> Embedding:
    """The vector in *data*: float32, shape (dimension,), read-only.

    Args:
        data: as stored.
        dimension: the expected length; 0 for any.
        owner: what the vector belongs to, for the error message.
        crc: the stored checksum; None where it is unknown.

    Raises:
        DamagedError: *data* has another length, or another checksum.
    """
    if type(data) is not bytes:
        raise DamagedError(f"Corrupt stored vector of {owner}: expected bytes, found {type(data).__name__}. {_REMEDY}")
    if len(data) != dimension * 4 and (dimension or len(data) % 4):
        raise DamagedError(
            f"Corrupt stored vector of {owner}: dimension {dimension} needs {dimension * 4} bytes, found {len(data)}. "
            f"{_REMEDY}"
        )
    if crc is not None and zlib.crc32(data) != crc:
        raise DamagedError(f"Corrupt stored vector of {owner}: the checksum does not match. {_REMEDY}")
    vector = np.frombuffer(data, STORED)
    return vector if _NATIVE else vector.astype(np.float32)


def decode_rows(blobs: Sequence[bytes], dimension: int) -> npt.NDArray[np.float32]:
    """The vectors of many stored values, each of the right length: float32, shape (len(blobs), dimension)."""
    rows = np.frombuffer(b"".join(blobs), STORED).reshape(len(blobs), dimension)
    return rows.astype(np.float32, copy=False)


def is_intact(data: bytes, crc: int | None) -> bool:
    """Whether *data* is bytes with the checksum *crc*; None, an unknown checksum, matches any bytes."""
    return type(data) is bytes and (crc is None or zlib.crc32(data) == crc)
