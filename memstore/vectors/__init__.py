"""Vectors as numbers: encoding, metrics, means, and the Poincaré ball.

Pure functions of arrays; float32 in, float64 for scores.
May import `errors`.
"""
