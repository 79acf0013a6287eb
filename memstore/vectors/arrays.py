"""Array types, and the length of rows."""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
Real = npt.NDArray[np.floating]


def lengths(wide: Wide) -> Wide:
    """The Euclidean length of each row: float64, shape (n,). In float64 no float32 vector over- or underflows."""
    squares: Wide = np.einsum("ij,ij->i", wide, wide)
    return np.sqrt(squares)
