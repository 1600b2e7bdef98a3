"""Choices of a policy side by side: what a search says of each, what its operations cost on a modelled machine.

``machine_file`` reads what a machine's operations cost, ``workload`` runs kernel code on such a machine, ``approaches``
are the choices that were argued over, ``comparing`` asks both questions of each, ``comparison`` is the whole as one
answer, ``published`` puts modelled figures beside published ones, ``page`` writes docs/the-question.md from results.
"""
