"""Forgetting: policies, plans of what a policy selects, and the trash.

A plan changes nothing; `forget` moves its records to the trash, all or none, if they have not changed since.
May import `repository`, `sync`, `filters` and what those import.
"""
