"""The scenarios that the package ships: one file each, found by `vmemmap.lab.scenario.registry`.

A file's docstring is the table of steps of the race. The expectations of all variants are checked by
``tests/scenarios``.
"""
