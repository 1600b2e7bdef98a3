"""The main job, ``vmemmap run``: what the input holds (`found`), the test of the thread (`acceptance`), every policy
(`policy_table`).
"""
