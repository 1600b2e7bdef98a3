"""What changed between two dumps of one machine: ``python diff_captures.py BEFORE AFTER``, of any kind."""

import sys

import vmemmap

before, after = sys.argv[1:3]
changes = vmemmap.diff(before, after)
print(changes.summary)
for head, pages in changes.hugepages_optimised:
    print(f"optimised: PFN {head:#x}, {pages * 4} KiB")
