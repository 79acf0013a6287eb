"""An embedding as an array and as bytes: dtype, byte order, finiteness, dimension, checksum.

Stored bytes are float32, little-endian, without a header; their length says the dimension. The checksum is
CRC-32 (as in `zlib.crc32`): it finds accidents, not forgeries.
"""

import math
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memstore.errors import DamagedError, DimensionError, EmbeddingError, short_repr
from memstore.models.records import Embedding
from memstore.vectors.space import MAX_DIMENSION

EmbeddingLike = Sequence[float] | npt.NDArray[np.floating] | npt.NDArray[np.integer]
"""What a caller may give as an embedding: any sequence of real numbers."""

STORED = np.dtype("<f4")
_FLOAT32 = np.dtype(np.float32)
_NATIVE = sys.byteorder == "little"


def as_embedding(value: object, dimension: int, *, zero_ok: bool, within: float | None = None) -> Embedding:
    """*value* as the array the store keeps: a read-only float32 copy, shape (dimension,).

    Args:
        value: a sequence of real numbers, rounded to float32.
        dimension: the store's.
        zero_ok: False under cosine and spherical, where a zero vector has no direction.
        within: how far from the origin it may lie; None for any distance.

    Raises:
        DimensionError: it is not of shape (dimension,).
        EmbeddingError: it is not made of real numbers, or one is NaN, infinite or beyond float32, or all are zero
            (also after rounding) where that is not allowed, or it lies too far from the origin.
    """
    given = value if type(value) is np.ndarray and value.dtype is _FLOAT32 else _rounded(value, dimension)
    if given.shape != (dimension,):
        raise _misshapen(dimension, given.shape)
    data = given.tobytes()  # a copy, contiguous, whatever the strides were
    vector: Embedding = np.frombuffer(data, _FLOAT32)  # read-only for good, because bytes are
    # One product settles the ordinary case; it overflows and underflows long before float32 does. Of all the ways to
    # take it, vdot alone neither warns of that nor costs as much as the product itself to keep from warning.
    if not 1e-30 < float(np.vdot(vector, vector)) < 1e30:
        if not np.isfinite(vector).all():
            raise EmbeddingError(
                "an embedding holds NaN or infinity, or a number beyond float32: mend it or leave it out"
            )
        if not zero_ok and not vector.any():
            raise EmbeddingError(
                "a zero embedding has no direction, so a metric of directions (cosine, spherical) cannot place it: "
                "leave it out"
            )
    if within is not None:
        _check_within(vector, within)
    return vector


def _check_within(vector: Embedding, within: float) -> None:
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if length > within:
        raise EmbeddingError(
            f"an embedding of length {length:.6g} lies outside this store's hyperbolic space, in which lengths end at "
            f"{within:.6g}: memstore.geometry.into_ball(vectors, curvature) takes Euclidean vectors into it"
        )


def _misshapen(dimension: int, shape: tuple[int, ...]) -> DimensionError:
    return DimensionError(expected=dimension, got=shape[0] if len(shape) == 1 else f"shape {shape}")


def _rounded(value: object, dimension: int) -> npt.NDArray[np.float32]:
    if isinstance(value, str | bytes | dict | set | frozenset) or value is None:
        raise EmbeddingError(f"an embedding is a sequence of real numbers; got {type(value).__name__}")
    wide = _as_array(value, dimension)
    if wide.size > MAX_DIMENSION:
        raise _misshapen(dimension, wide.shape)  # before it is copied: a view can be of any size
    if wide.size == 0:
        wide = np.empty(wide.shape)
    if wide.dtype == object:
        # Python integers beyond 64 bits, decimals, fractions: real numbers all the same.
        try:
            wide = np.array([float(x) for x in wide.ravel()]).reshape(wide.shape)
        except Exception as error:
            raise EmbeddingError("an embedding is a sequence of real numbers within float32") from error
    if wide.dtype.kind not in "fiu":
        raise EmbeddingError(f"an embedding is made of real numbers; got an array of {wide.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        return wide.astype(np.float32)


def _as_array(value: object, dimension: int) -> npt.NDArray[Any]:
    """*value* as NumPy reads it, if it is not too large: NumPy follows nested lists to any depth."""
    try:
        if type(value) is list and len(value) == dimension and type(value[0]) is float:
            return np.asarray(value)  # what most callers give
        masked, shape = bool(np.any(getattr(value, "mask", False))), _shape(value)
        fits = not masked and len(shape) < 3 and math.prod(shape) <= MAX_DIMENSION
        array = np.asarray(value) if fits else None
    except ValueError as error:
        raise EmbeddingError(
            "an embedding is one flat sequence of real numbers; got nested ones of unequal length"
        ) from error
    except Exception as error:
        raise EmbeddingError(
            f"an embedding is a sequence of real numbers; this one raises {short_repr(error)}"
        ) from error
    if masked:
        raise EmbeddingError("an embedding holds masked numbers, which are no numbers: fill them in first")
    if array is None:
        raise _misshapen(dimension, shape)
    return array


def _shape(value: object) -> tuple[int, ...]:
    """The lengths of a sequence, of the first in it, and of the first in that; of anything else nothing."""
    if not isinstance(value, Sequence):
        return ()
    inner = value[0] if len(value) else None
    return (len(value), *(_shape(inner)[:2] if isinstance(inner, list | tuple) else ()))


def encode(vector: Embedding) -> bytes:
    """The stored bytes of *vector*: of one that `as_embedding` or `decode` made, the very bytes it stands on."""
    if not _NATIVE:
        return vector.astype(STORED).tobytes()
    under: object = vector.base
    return under if type(under) is bytes and len(under) == vector.nbytes else vector.tobytes()


def decode(data: bytes, dimension: int, what: str, written: int | None) -> Embedding:
    """The vector that *data* holds: float32, shape (dimension,), read-only.

    Args:
        data: as stored.
        dimension: the store's.
        what: names its owner in the error's message.
        written: its checksum, None where that is unknown.

    Raises:
        DamagedError: it is of another length, or not what was written.
    """
    if type(data) is not bytes:
        raise DamagedError(
            f"the stored vector of {what} is no bytes but {type(data).__name__}: give it a new embedding"
        )
    if len(data) != dimension * 4:
        raise DamagedError(
            f"the stored vector of {what} has {len(data)} bytes where dimension {dimension} needs {dimension * 4}: "
            "give it a new embedding with update(), or delete it"
        )
    if not intact(data, written):
        raise DamagedError(
            f"the stored vector of {what} is not what was written: "
            "give it a new embedding with update() (None drops it), or delete it"
        )
    vector = np.frombuffer(data, STORED)
    return vector if _NATIVE else vector.astype(np.float32)


def decode_rows(blobs: Sequence[bytes], dimension: int) -> npt.NDArray[np.float32]:
    """The vectors of many stored values, each of the right length: float32, shape (len(blobs), dimension)."""
    rows = np.frombuffer(b"".join(blobs), STORED).reshape(len(blobs), dimension)
    return rows.astype(np.float32, copy=False)


def intact(data: bytes, written: int | None) -> bool:
    """Whether *data* is bytes that have the checksum *written* with them; None, where it is unknown, says nothing."""
    return type(data) is bytes and (written is None or zlib.crc32(data) == written)


def checksum(data: bytes) -> int:
    """CRC-32 of stored bytes, 0 to 2**32 - 1."""
    return zlib.crc32(data)
