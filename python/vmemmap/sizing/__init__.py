"""Arithmetic on sizes, without a machine: layouts, what HVO saves, what a removal frees,
and what the host at hand has.
"""
