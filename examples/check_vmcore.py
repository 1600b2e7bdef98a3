"""Check the vmemmap tables of a crash dump: ``python check_vmcore.py VMCORE``. Exit code 1 if an invariant fell."""

import sys

import vmemmap

report = vmemmap.check(sys.argv[1]).to_dict()
counts = report["counts"]
print(f"{report['verdict']}: {counts['tables']} tables, {counts['optimised_hugepages']} optimised hugepages")
for violation in report["violations"]:
    print(f"{violation['invariant']} at {violation['address']:#x}: {violation['message']}")
print("held:", *(name for name, state in report["invariants"].items() if state == "held"))
sys.exit(report["verdict"] != "clean")
