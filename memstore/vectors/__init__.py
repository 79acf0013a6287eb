"""Vectors as numbers: encoding, metrics, means, and the Poincaré ball.

Pure functions of arrays: float32 vectors in, float64 scores out. No I/O and no state.
May import `errors` and `models`.
"""

from memstore.vectors.hyperbolic import into_ball, out_of_ball

__all__ = ["into_ball", "out_of_ball"]
