"""The vectors of many records as one matrix, and as the tables of other libraries."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memstore.errors import UsageError
from memstore.models.record import Record
from memstore.models.records import Namespace

if TYPE_CHECKING:  # both belong to the extra `dataframe`
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True, repr=False, eq=False, kw_only=True)
class Vectors(Record):
    """The vectors of records, in order of creation. Records without a vector are left out.

    Attributes:
        ids: ids of the records.
        namespaces: namespaces of the records; None unless the vectors were read with `recursive=True`.
        matrix: float32, shape (len(ids), dimension), row by row as the caller stored them. The caller's own copy.
    """

    ids: list[str]
    namespaces: list[Namespace] | None
    matrix: npt.NDArray[np.float32]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        equal = np.array_equal(self.matrix, other.matrix, equal_nan=True)
        return equal and (self.ids, self.namespaces) == (other.ids, other.namespaces)

    __hash__ = None  # type: ignore[assignment]  # its lists can be changed

    def __len__(self) -> int:
        return len(self.ids)

    def to_pandas(self) -> "pd.DataFrame":
        """A DataFrame with a float32 column for each component, which shares the memory of `matrix`.

        Its index is `id`; with namespaces it has the levels `namespace`, whose values are tuples, and `id`. Needs the
        extra `dataframe`.

        Raises:
            UsageError: pandas is not installed.
        """
        pandas = _package("pandas")
        index = pandas.Index(self.ids, name="id", dtype=object)
        if self.namespaces is not None:
            spaces = pandas.Index(_objects(self.namespaces), name="namespace", tupleize_cols=False)
            index = pandas.MultiIndex.from_arrays([spaces, index])
        frame: pd.DataFrame = pandas.DataFrame(self.matrix, index=index, copy=False)
        return frame

    def to_arrow(self) -> "pa.Table":
        """An Arrow table with the columns `id` (string) and `vector` (fixed-size list of float32).

        With namespaces the first column is `namespace` (list of strings). The vectors share the memory of `matrix`.
        Needs the extra `dataframe`.

        Raises:
            UsageError: pyarrow is not installed.
        """
        arrow = _package("pyarrow")
        numbers = arrow.array(np.ascontiguousarray(self.matrix).reshape(-1))
        columns: dict[str, Any] = {} if self.namespaces is None else {"namespace": self._arrow_namespaces(arrow)}
        columns["id"] = arrow.array(self.ids, type=arrow.string())
        columns["vector"] = arrow.FixedSizeListArray.from_arrays(numbers, self.matrix.shape[1])
        table: pa.Table = arrow.table(columns)
        return table

    def _arrow_namespaces(self, arrow: Any) -> Any:
        return arrow.array(list(map(list, self.namespaces or [])), type=arrow.list_(arrow.string()))


def _objects(values: list[Namespace]) -> npt.NDArray[np.object_]:
    """A one-dimensional array of tuples, which NumPy would make two-dimensional by itself."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _package(name: str) -> Any:
    """The package *name* of the extra `dataframe`, imported late: it is large, and optional."""
    try:
        if name == "pandas":
            import pandas

            return pandas
        import pyarrow
    except ImportError as error:
        raise UsageError(f"Package {name} is not installed: run pip install 'memstore[dataframe]'") from error
    return pyarrow
