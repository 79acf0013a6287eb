"""The frozen records that callers receive.

They compare by all fields and hold no connection.
May import `errors` and `vectors`.
"""
