"""Array types, and the norms of rows."""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
"""float32, shape (n, dimension)."""

Keys = npt.NDArray[np.int64]
"""Keys, positions or times: int64, shape (n,)."""

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]


def row_norms(rows: Doubles) -> Doubles:
    """The Euclidean norm of each row: float64, shape (n,). In float64 no float32 vector overflows or underflows."""
    squares: Doubles = np.einsum("ij,ij->i", rows, rows)
    return np.sqrt(squares)
