"""NumPy's scalars as the Python values they equal: arguments of every verb and option may be either."""

import numpy as np


def plain_scalar(value: object) -> object:
    """*value*, or the equal Python bool, int, float or str of a NumPy scalar.

    Other scalars of NumPy (complex numbers, times, bytes) have no exact counterpart among the arguments of verbs and
    are returned as they are.
    """
    if not isinstance(value, np.generic):
        return value
    match value:
        case np.bool_():
            return bool(value)
        case np.timedelta64():  # to NumPy, an integer
            return value
        case np.integer():
            return int(value)
        case np.floating():
            return float(value)
        case np.str_():
            return str.__str__(value)
        case _:
            return value
