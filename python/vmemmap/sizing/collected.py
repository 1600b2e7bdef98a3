"""What support tools collect of a host, under the names that ``/proc`` and ``/sys`` have: a sosreport keeps command
output beside a part
of the tree, an OpenShift must-gather describes nodes in YAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import SpecError

__all__ = ["collected_files", "find_root"]

_DEEPEST: Final = 4
_MOST_ENTRIES: Final = 4096
_LIMIT: Final = 4 << 20
_UNITS: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}
_ARCHITECTURES: Final = {"arm64": "aarch64", "amd64": "x86_64"}


def find_root(given: Path) -> Path:
    """The directory of one host in or at `given`: that with ``proc`` or ``sys``, or the file of a node that a
    must-gather has.

    Args:
        given: Directory, or file of a node.

    Returns:
        The directory or file.

    Raises:
        SpecError: There is none, or more than one; the message lists them.
    """
    if _is_root(given) or _is_node(given):
        return given
    if not given.is_dir():
        raise SpecError(
            f"root is {str(given)!r}: expected a directory with proc and sys in it, "
            "a sosreport or a node's YAML of a must-gather"
        )
    hosts = list(_hosts(given))
    if not hosts:
        raise SpecError(
            f"root is {str(given)!r}: has neither proc nor sys in it, nor the copy of a host or the YAML of a node"
        )
    if len(hosts) > 1:
        shown = ", ".join(str(host) for host in hosts[:8]) + (f" and {len(hosts) - 8} more" if len(hosts) > 8 else "")
        raise SpecError(f"root is {str(given)!r}: describes several hosts, give one: {shown}")
    return hosts[0]


def collected_files(root: Path) -> dict[str, str]:
    """Path as on the host → what a file there holds, by what was collected instead of it.

    Args:
        root: What `find_root` found.

    Returns:
        Contents by path, without a slash in front.
    """
    if root.is_file():
        return _of_node(_read(root) or "")
    files: dict[str, str] = {}
    uname = _inside(root, "sos_commands/kernel/uname_-a") or _inside(root, "uname") or ""
    words = uname.split()
    if len(words) > 3 and words[0] == "Linux":
        files["proc/sys/kernel/osrelease"] = words[2]
        arch = [word for word in words if re.fullmatch(r"aarch64|x86_64|ppc64le|s390x|riscv64|loongarch64", word)]
        if arch:
            files["proc/sys/kernel/arch"] = arch[-1]
    for found in re.finditer(
        r"^((?:kernel|vm)\.[\w.]{1,80}) = (.{0,200})$",
        _inside(root, "sos_commands/kernel/sysctl_-a") or "",
        re.MULTILINE,
    ):
        files.setdefault("proc/sys/" + found[1].replace(".", "/"), found[2])
    return files


def _hosts(given: Path) -> Iterator[Path]:
    """Copies of hosts below `given`, not below one another."""
    level, seen = [given], 0
    for _ in range(_DEEPEST):
        below: list[Path] = []
        for directory in level:
            try:
                entries = sorted(directory.iterdir())
            except OSError:
                continue
            for entry in entries:
                seen += 1
                if seen > _MOST_ENTRIES:
                    return
                if entry.is_symlink():
                    continue
                if _is_root(entry) or _is_node(entry):
                    yield entry
                elif entry.is_dir():
                    below.append(entry)
        level = below


def _is_root(path: Path) -> bool:
    return (path / "proc").is_dir() or (path / "sys").is_dir()


def _is_node(path: Path) -> bool:
    """A node's YAML: ``cluster-scoped-resources/core/nodes/NAME.yaml``."""
    return (
        path.suffix in (".yaml", ".yml")
        and path.is_file()
        and bool(re.search(r"^kind: Node$", _read(path) or "", re.MULTILINE))
    )


def _of_node(text: str) -> dict[str, str]:
    """What ``status`` of a node tells. Hugepages are those of ``capacity``; how many are free it does not tell."""
    files: dict[str, str] = {}
    one = {
        name: found[1]
        for name in ("kernelVersion", "architecture")
        if (found := re.search(rf"^\s+{name}: (\S{{1,128}})$", text, re.MULTILINE))
    }
    if "kernelVersion" in one:
        files["proc/sys/kernel/osrelease"] = one["kernelVersion"]
    if "architecture" in one:
        files["proc/sys/kernel/arch"] = _ARCHITECTURES.get(one["architecture"], one["architecture"])
    capacity = re.search(r"^(\s+)capacity:\n((?:\1\s+\S.*\n)+)", text + "\n", re.MULTILINE)
    for line in (capacity[2] if capacity else "").splitlines():
        name, _, value = line.strip().partition(": ")
        size = _quantity(value.strip("\"'"))
        if size is None:
            continue
        if name == "memory":
            files["proc/meminfo"] = f"MemTotal: {size >> 10} kB\n"
        elif name.startswith("hugepages-") and (each := _quantity(name.removeprefix("hugepages-"))):
            files[f"sys/kernel/mm/hugepages/hugepages-{each >> 10}kB/nr_hugepages"] = str(size // each)
    return files


def _quantity(text: str) -> int | None:
    found = re.fullmatch(r"([0-9]{1,20})(Ki|Mi|Gi|Ti)?", text)
    return None if found is None else int(found[1]) << (_UNITS[found[2]] if found[2] else 0)


def _inside(root: Path, name: str) -> str | None:
    """A file of the tree, unless a link leads out of it."""
    path = (root / name).resolve()
    return _read(path) if path.is_relative_to(root.resolve()) else None


def _read(path: Path) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(_LIMIT).decode(errors="replace")
    except (OSError, ValueError):
        return None
