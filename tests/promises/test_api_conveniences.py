"""The API does what a caller expects."""

# Representation and errors.

# Paging and projection.

# Batch verbs.

# A store without a dimension.

# Command line.
