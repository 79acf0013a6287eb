"""Forgetting: policies, the plan of what a policy selects, and moving the planned records to the trash.

A plan changes nothing; applying it moves exactly the records that have not changed since.
May import `repository`, `filters` and what those import.
"""
