"""Distances, similarities and means: the formula of each metric, in one place.

=============== ======================================================= =============================
metric          score of query q and vector x (higher is closer)        range
=============== ======================================================= =============================
cosine          q·x / (|q| |x|)                                         -1 to 1
inner_product   q·x                                                     any real number
l2              1 / (1 + d),  d = sqrt(Σ (qᵢ - xᵢ)²)                    0 (excluded) to 1
=============== ======================================================= =============================

Vectors are compared as float32 in *index form*: under cosine, scaled to length 1; else as they are. Ranking is by
float32 arithmetic, the scores of the hits are computed again in float64 from the index form.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memstore.records import Embedding
from memstore.settings import Metric

Rows = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]

CANCELLED = 1e-6
"""A mean shorter than this share of its members' mean length has no meaning left, only rounding."""


def index_form(metric: Metric, rows: Rows) -> Rows:
    """*rows* as the index compares them: float32, shape (n, dimension); under cosine each of length 1."""
    return _of_length_1(rows)[1] if metric == "cosine" else rows


def usable_form(metric: Metric, rows: Rows) -> tuple[npt.NDArray[np.bool_], Rows]:
    """Which of *rows* are usable, shape (n,), and the index form of those that are: both in one pass."""
    if metric != "cosine":
        good = usable(metric, rows)
        return good, rows if good.all() else rows[good]
    with np.errstate(all="ignore"):
        size, form = _of_length_1(rows)
    good = np.isfinite(size) & (size > 0)
    return good, form if good.all() else form[good]


def _of_length_1(rows: Rows) -> tuple[Wide, Rows]:
    wide = rows.astype(np.float64)
    size = lengths(wide)
    wide /= size[:, None]
    return size, wide.astype(np.float32)


def usable(metric: Metric, rows: Rows) -> npt.NDArray[np.bool_]:
    """Which of *rows* have a place in the metric: finite, and under cosine not zero. No verb stores any other."""
    good = np.asarray(np.isfinite(rows).all(axis=1))
    return good & np.asarray(rows.any(axis=1)) if metric == "cosine" else good


def lengths(wide: Wide) -> Wide:
    """The Euclidean length of each row: float64, shape (n,). In float64 no float32 vector over- or underflows."""
    squares: Wide = np.einsum("ij,ij->i", wide, wide)
    return np.sqrt(squares)


def scores(metric: Metric, query: Embedding, rows: Rows) -> Wide:
    """The documented score of each row against *query*, both in index form: float64, shape (n,)."""
    wide = rows.astype(np.float64)
    if metric == "l2":
        return 1.0 / (1.0 + lengths(wide - query.astype(np.float64)))
    products: Wide = wide @ query.astype(np.float64)
    if metric == "cosine":
        np.minimum(products, 1.0, out=products)  # in a third of np.clip's time, which is that of the product
        np.maximum(products, -1.0, out=products)
    return products


@dataclass(slots=True)
class Mean:
    """A mean that grows: what a composite is computed from.

    Attributes:
        total: the sum of the members' vectors in index form, float64, shape (dimension,).
        length: the sum of their lengths.
        count: how many.
    """

    total: Wide
    length: float = 0.0
    count: int = 0

    def add(self, metric: Metric, rows: Rows) -> None:
        """Take in more members: float32, shape (n, dimension), as stored.

        They are summed one after the other, in the order given, so that the same members in the same order
        give the same bits however they are cut into calls.
        """
        wide = index_form(metric, rows).astype(np.float64)
        self.length = float(np.add.accumulate(np.concatenate([[self.length], lengths(wide)]))[-1])
        for row in wide:
            self.total += row
        self.count += len(rows)

    def vector(self, metric: Metric) -> Embedding | None:
        """The composite: the mean, under cosine at length 1; None when there is none or the members cancel out."""
        if self.count == 0:
            return None
        mean = self.total / self.count
        length = float(np.sqrt((mean * mean).sum()))
        if length < CANCELLED * (self.length / self.count):
            return None
        if metric == "cosine":
            mean = mean / length
        vector = mean.astype(np.float32)
        vector.flags.writeable = False
        return vector
