"""The promises of the store, one test each, grouped by subject."""
