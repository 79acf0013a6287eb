"""Times of commits under a clock that is set.

Rows that record what was done are in the order of their commits, which is that of their keys. Their wall time is data:
a clock that is ahead or behind, and is then corrected, leaves times that do not ascend. The functions here find the
times that can be trusted; a row between two trusted rows happened between them, whatever its own time says.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LATEST = 2**63 - 1
"""A time after every other: of a row whose time cannot be read."""

Times = npt.NDArray[np.int64]


_BEHIND = 30 * 86_400_000_000  # microseconds; a clock that was behind is behind by years, as a rule


def effective_times(times: Sequence[int], present: int) -> Times:
    """Times of rows in the order of their commits, by which the age of a row is not overestimated.

    A time after *present* was never right: the row gets the next time that can be, or *present*. A time more than 30
    days before that of an earlier row is of a clock that was behind: the row gets the time of the earlier one.
    """
    array = np.array(times, dtype=np.int64)
    possible = array <= present
    following = np.minimum.accumulate(np.where(possible, array, present)[::-1])[::-1]
    previous = np.maximum.accumulate(np.where(possible, array, np.iinfo(np.int64).min))
    return np.where(possible, np.where(previous - array > _BEHIND, previous, array), following)
