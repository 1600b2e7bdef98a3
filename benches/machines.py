"""Write the machines that published figures make: ``python/vmemmap/data/machines``."""

from __future__ import annotations

from pathlib import Path

from vmemmap.comparison import published

FOLDER = Path(__file__).resolve().parent.parent / "python/vmemmap/data/machines"


def main() -> None:
    for machine in published.machines():
        (FOLDER / f"{machine.name}.toml").write_text(published.to_toml(machine), encoding="utf-8")


if __name__ == "__main__":
    main()
