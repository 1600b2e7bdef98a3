"""``vmemmap host`` on made-up trees of files, whose figures are worked out by hand,
and on the host that the tests run on.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmemmap.errors import SpecError
from vmemmap.sizing.host import Host, host

GIB = 1 << 30
POOL = "sys/kernel/mm/hugepages/hugepages-{}kB/"
SYSCTL = "proc/sys/vm/hugetlb_optimize_vmemmap"
ARM64 = {4096: (64, 2048, 32768, 1048576), 16384: (2048, 32768, 1048576), 65536: (2048, 524288, 16777216)}


def pool(size_kb: int, nr: int, free: int = 0, resv: int = 0, surplus: int = 0) -> dict[str, str]:
    counts = {
        "nr_hugepages": nr,
        "free_hugepages": free,
        "resv_hugepages": resv,
        "surplus_hugepages": surplus,
        "nr_overcommit_hugepages": 0,
    }
    return {POOL.format(size_kb) + name: f"{count}\n" for name, count in counts.items()}


def blocks(number: int, size: int, offline: int = 0) -> dict[str, str]:
    at = "sys/devices/system/memory/"
    files = {at + "block_size_bytes": f"{size:x}\n", at + "auto_online_blocks": "online\n"}
    for i in range(number):
        files[at + f"memory{i}/state"] = "offline\n" if i < offline else "online\n"
        files[at + f"memory{i}/removable"] = "1\n"
    return files


def base(arch: str, release: str, memory_kb: int, vmstat: str = "", cmdline: str = "quiet") -> dict[str, str]:
    return {
        "proc/sys/kernel/arch": arch + "\n",
        "proc/sys/kernel/osrelease": release + "\n",
        "proc/sys/vm/nr_hugepages": "0\n",
        "proc/meminfo": f"MemTotal:       {memory_kb} kB\nHugepagesize:       2048 kB\n",
        "proc/vmstat": f"nr_free_pages 4592143\n{vmstat}",
        "proc/cmdline": cmdline + "\n",
    }


def tree(root: Path, *parts: Mapping[str, str]) -> Path:
    for part in parts:
        for name, text in part.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return root


def reasons(found: Host) -> dict[str, str]:
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert [row["path"] for row in found.to_dict()["could_not_read"]] == list(found.unread)
    for path, reason in found.unread.items():
        assert f"{path}: {reason}" in found.text()
    return dict(found.unread)


def x86(root: Path, sysctl: str | None = "1", vmstat: str = "", **more: str) -> Path:
    """32 GiB in 256 blocks of 128M: 131072 vmemmap pages. 1000 × 2M and 4 × 1G."""
    parts = [
        base("x86_64", "6.12.9", 32 << 20, vmstat),
        pool(2048, 1000, 10, 5, 2),
        pool(1048576, 4),
        blocks(256, 128 << 20, offline=3),
    ]
    switch = {} if sysctl is None else {SYSCTL: sysctl + "\n"}
    return tree(root, *parts, switch, {"boot/config-6.12.9": "CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP=y\n"}, more)


def test_pools_of_an_x86_host_save_what_the_kernel_documents(tmp_path: Path) -> None:
    found = host(x86(tmp_path))
    d = found.to_dict()
    small, large = d["pools"]
    assert (small["name"], small["count"], small["vmemmap_pages_each"], small["frames_freed_each"]) == (
        "2M",
        1000,
        8,
        7,
    )
    assert (small["free_hugepages"], small["resv_hugepages"], small["surplus_hugepages"]) == (10, 5, 2)
    assert (large["name"], large["count"], large["vmemmap_pages_each"], large["frames_freed_each"]) == (
        "1G",
        4,
        4096,
        4095,
    )
    assert d["frames_if_all_optimised"] == 1000 * 7 + 4 * 4095 == 23380
    assert d["bytes_if_all_optimised"] == 95_764_480
    assert d["percent_of_memory"] == pytest.approx(0.2787, abs=1e-4)
    assert d["memory"] == 32 * GIB and d["page_size"] == 4096
    assert d["memory_blocks"] == {
        "block_size": 128 << 20,
        "blocks": 256,
        "states": {"offline": 3, "online": 253},
        "removable": 256,
        "auto_online_blocks": "online",
        "memmap_on_memory": None,
    }
    assert reasons(found) == {}


@pytest.mark.parametrize(
    ("vmstat", "least"),
    [
        ("", 0),
        ("nr_memmap_pages 0\nnr_memmap_boot_pages 131072\n", 0),
        ("nr_memmap_pages 0\nnr_memmap_boot_pages 124072\n", 7000),
        ("nr_memmap_pages 1004\nnr_memmap_boot_pages 106688\n", 23380),
        # page_ext is counted too: more than the memory needs proves nothing, and hides what is saved.
        ("nr_memmap_pages 9000\nnr_memmap_boot_pages 131072\n", 0),
        ("nr_memmap_pages 0\nnr_memmap_boot_pages 1\n", 23380),
    ],
)
def test_what_hvo_saves_is_a_range_whose_lower_end_the_counters_give(tmp_path: Path, vmstat: str, least: int) -> None:
    d = host(x86(tmp_path, vmstat=vmstat)).to_dict()
    assert d["saved"] == {
        "frames_least": least,
        "frames_most": 23380,
        "bytes_least": least * 4096,
        "bytes_most": 23380 * 4096,
    }
    assert d["to_gain"] == {"bytes_least": 0, "bytes_most": (23380 - least) * 4096}
    assert any("which hugepages are optimised" in line for line in d["not_known"]) == (least < 23380)


def test_the_sysctl_off_does_not_say_that_nothing_is_optimised(tmp_path: Path) -> None:
    d = host(x86(tmp_path, sysctl="0")).to_dict()
    assert (d["hvo"]["available"], d["hvo"]["on"], d["saved"]["frames_most"]) == (True, False, 23380)


def test_zones_count_where_a_block_is_many_sections(tmp_path: Path) -> None:
    zones = (
        "Node 0, zone   Normal\n  pages free     1\n        spanned  9999999\n        present  4194304\n"
        "        managed  5\n"
    )
    files = x86(tmp_path, vmstat="nr_memmap_pages 0\nnr_memmap_boot_pages 65000\n")
    tree(files, {"proc/zoneinfo": zones, "sys/devices/system/memory/block_size_bytes": "80000000\n"})
    found = host(files)
    assert found.memmap_least == 65536 and found.frames_saved_least == 536


def test_nothing_is_concluded_where_blocks_hold_their_own_struct_pages(tmp_path: Path) -> None:
    files = x86(tmp_path, vmstat="nr_memmap_pages 0\nnr_memmap_boot_pages 1\n")
    found = host(tree(files, {"sys/module/memory_hotplug/parameters/memmap_on_memory": "force\n"}))
    assert found.frames_saved_least == 0
    assert any("memmap_on_memory" in line for line in found.not_known())


@pytest.mark.parametrize(
    ("page", "sizes_kb", "freed"),
    [
        (4096, ARM64[4096], [0, 7, 127, 4095]),
        (16384, ARM64[16384], [0, 7, 255]),
        (65536, ARM64[65536], [0, 7, 255]),
    ],
)
def test_an_arm64_host_tells_its_granule_by_its_hugepages(
    tmp_path: Path, page: int, sizes_kb: tuple[int, ...], freed: list[int]
) -> None:
    files = tree(
        tmp_path, base("aarch64", "6.12.1", 8 << 20), *(pool(size, 1) for size in sizes_kb), blocks(4, 512 << 20)
    )
    d = host(files).to_dict()
    assert (d["page_size"], d["page_size_from"]) == (page, "hugepage sizes")
    assert [row["frames_freed_each"] for row in d["pools"]] == freed
    assert (d["hvo"]["available"], d["hvo"]["on"]) == (False, False)
    assert d["saved"]["bytes_most"] == 0
    assert d["to_gain"]["bytes_least"] == d["to_gain"]["bytes_most"] == d["bytes_if_all_optimised"] == sum(freed) * page
    text = host(files).text()
    assert "would save" in text and "060a2c92d1b6" in text


def test_an_arm64_kernel_that_has_hvo_all_the_same_is_believed(tmp_path: Path) -> None:
    d = host(
        tree(tmp_path, base("aarch64", "6.1.192", 8 << 20), *(pool(size, 1) for size in ARM64[4096]), {SYSCTL: "1\n"})
    ).to_dict()
    assert (d["hvo"]["available"], d["hvo"]["on"], d["saved"]["frames_most"]) == (True, True, 7 + 127 + 4095)


@pytest.mark.parametrize(
    ("release", "config", "cmdline", "available", "on", "reserved"),
    [
        ("5.10.0", None, "", False, False, 1),
        ("5.15.0", None, "hugetlb_free_vmemmap=on", None, None, 2),
        ("5.15.0", "CONFIG_HUGETLB_PAGE_FREE_VMEMMAP=y\n", "hugetlb_free_vmemmap=on", True, True, 2),
        ("5.11.0", "CONFIG_HUGETLB_PAGE_FREE_VMEMMAP=y\n", "", True, False, 2),
        ("5.11.0", "CONFIG_HUGETLB_PAGE_FREE_VMEMMAP=y\n", "hugetlb_free_vmemmap=on", True, True, 2),
        ("5.15.0", "CONFIG_HUGETLB_PAGE_FREE_VMEMMAP=y\n", "", True, False, 2),
        (
            "5.15.0",
            "CONFIG_HUGETLB_PAGE_FREE_VMEMMAP=y\nCONFIG_HUGETLB_PAGE_FREE_VMEMMAP_DEFAULT_ON=y\n",
            "",
            True,
            True,
            2,
        ),
        ("5.18.0", "CONFIG_HUGETLBFS=y\n", "", False, False, 1),
        ("6.6.0", "CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP=y\n", "", False, False, 1),
        ("6.6.0", None, "", False, False, 1),
    ],
)
def test_without_the_sysctl_version_and_configuration_decide(
    tmp_path: Path,
    release: str,
    config: str | None,
    cmdline: str,
    available: bool | None,
    on: bool | None,
    reserved: int,
) -> None:
    files = tree(
        tmp_path, base("x86_64", release, 1 << 20, cmdline=f"quiet {cmdline} hugepages=3 secret=x"), pool(2048, 3)
    )
    if config is not None:
        (files / "proc/config.gz").write_bytes(gzip.compress(config.encode()))
    d = host(files).to_dict()
    assert (d["hvo"]["available"], d["hvo"]["on"], d["hvo"]["reserved"]) == (available, on, reserved)
    assert d["pools"][0]["frames_freed_each"] == 8 - reserved
    assert d["command_line"] == [*cmdline.split(), "hugepages=3"]
    assert ("/proc/config.gz" in host(files).unread) == (config is None)


def test_a_vendor_kernel_with_the_sysctl_keeps_one_page_whatever_its_version(tmp_path: Path) -> None:
    d = host(tree(tmp_path, base("x86_64", "5.14.0-570.el9.x86_64", 1 << 20), pool(2048, 3), {SYSCTL: "1\n"})).to_dict()
    assert (d["hvo"]["available"], d["hvo"]["reserved"]) == (True, 1)


def test_nodes_are_told_apart(tmp_path: Path) -> None:
    node = "sys/devices/system/node/node{}/hugepages/hugepages-2048kB/"
    files = x86(tmp_path)
    for number, nr in ((0, 600), (1, 400)):
        counts = {"nr_hugepages": nr, "free_hugepages": number, "surplus_hugepages": 0}
        tree(files, {node.format(number) + name: f"{count}\n" for name, count in counts.items()})
    found = host(files)
    assert found.to_dict()["pools"][0]["nodes"] == {
        "0": {"nr_hugepages": 600, "free_hugepages": 0, "surplus_hugepages": 0},
        "1": {"nr_hugepages": 400, "free_hugepages": 1, "surplus_hugepages": 0},
    }
    assert "node 1" in found.text()


def test_a_host_without_hugepages_or_blocks_is_described(tmp_path: Path) -> None:
    found = host(tree(tmp_path, base("x86_64", "6.1.0", 1 << 20)))
    assert found.pools == () and found.blocks.number == 0 and found.frames_all == 0
    assert "no hugepage pools" in found.text()
    assert list(reasons(found)) == ["/proc/config.gz"]


def test_an_empty_proc_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    found = host(tmp_path)
    files = {
        "proc/sys/kernel/osrelease",
        "proc/cmdline",
        "proc/meminfo",
        "proc/vmstat",
        "proc/config.gz",
        "sys/kernel/mm/hugepages",
    }
    assert set(reasons(found)) == {f"/{name}" for name in files}
    assert "hugepage pools are not known" in found.text()
    assert (found.machine, found.page_size, found.memory, found.hvo.available) == (None, None, None, None)
    assert "--page-size" in found.text()


def test_without_a_page_size_nothing_is_computed_until_it_is_given(tmp_path: Path) -> None:
    files = tree(tmp_path, base("ppc64le", "6.1.0", 1 << 20), pool(16384, 4))
    d = host(files).to_dict()
    assert d["page_size"] is None and d["pools"][0]["frames_freed_each"] is None and d["pools"][0]["nr_hugepages"] == 4
    assert "not known without the page size" in host(files).text()
    assert host(files, "64K").to_dict()["pools"][0]["frames_freed_each"] == 0
    assert host(files, 4096).to_dict()["pools"][0]["frames_freed_each"] == 63


@pytest.mark.parametrize(
    ("marks", "machine"),
    [
        ("flags\t\t: fpu lm sse\n", "x86_64"),
        ("CPU implementer\t: 0x41\n", "aarch64"),
        ("isa\t\t: rv64imafdc\n", "riscv64"),
        ("model\t: ?\n", None),
    ],
)
def test_the_machine_of_an_older_tree_is_known_by_its_processors(
    tmp_path: Path, marks: str, machine: str | None
) -> None:
    files = tree(tmp_path, base("", "6.0.0", 1 << 20), {"proc/cpuinfo": marks})
    (files / "proc/sys/kernel/arch").unlink()
    assert host(files).machine == machine
    (files / "proc/sys/kernel/osrelease").write_text("5.14.0-70.el9.aarch64\n")
    assert host(files).machine == "aarch64"


def test_smaps_of_a_tree_tell_the_page_size(tmp_path: Path) -> None:
    smaps = {"proc/1/smaps": "KernelPageSize:       2048 kB\nKernelPageSize:        64 kB\n"}
    assert host(tree(tmp_path, base("aarch64", "6.1.0", 1 << 20), smaps)).page_size == 65536


def test_what_cannot_be_read_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = x86(tmp_path / "host", vmstat="nr_memmap_pages 0\nnr_memmap_boot_pages 131072\n")
    (tmp_path / "secret").write_text("7\n")
    small = files / POOL.format(2048)
    (small / "nr_hugepages").write_text("many\x1b[31m\n")
    (small / "free_hugepages").write_bytes(bytes(range(256)))
    (small / "resv_hugepages").unlink()
    (small / "resv_hugepages").symlink_to(tmp_path / "secret")
    (small / "surplus_hugepages").unlink()
    os.mkfifo(small / "surplus_hugepages")
    (small / "nr_overcommit_hugepages").write_text("9" * 30)
    denied = files / "sys/devices/system/memory/memory7/state"
    really = Path.open

    def refuse(self: Path, *arguments: Any, **more: Any) -> Any:
        if self == denied:
            raise PermissionError(13, "Permission denied", str(self))
        return really(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    found = host(files)
    told = reasons(found)
    at = "/" + POOL.format(2048)
    assert "expected a number" in told[at + "nr_hugepages"] and "\x1b" not in found.text()
    assert (
        "expected a number" in told[at + "free_hugepages"]
        and "expected a number" in told[at + "nr_overcommit_hugepages"]
    )
    assert told[at + "resv_hugepages"] == "leads out of the tree"
    assert told[at + "surplus_hugepages"] == "is no regular file"
    assert told["/sys/devices/system/memory/memory7/state"] == "Permission denied"
    assert found.blocks.states["unknown"] == 1
    assert found.to_dict()["pools"][0]["nr_hugepages"] is None


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return x86(tmp_path_factory.mktemp("host"))


@pytest.mark.parametrize(
    "name",
    ["proc/meminfo", "proc/vmstat", "proc/cmdline", "proc/config.gz", SYSCTL, POOL.format(2048) + "nr_hugepages"],
)
@given(content=st.binary(max_size=200))
@settings(max_examples=10, deadline=None)
def test_no_content_of_a_file_brings_it_down(once: Path, name: str, content: bytes) -> None:
    path = once / name
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    found = host(once)
    reasons(found)
    assert 0 <= found.frames_saved_least <= found.frames_saved_most <= found.frames_all
    path.unlink() if before is None else path.write_bytes(before)


def test_the_host_itself_is_read_and_left_as_it_is() -> None:
    found = host()
    assert (
        found.page_size == os.sysconf("SC_PAGE_SIZE")
        and found.machine == os.uname().machine
        and found.release == os.uname().release
    )
    assert found.memory is not None and found.memory > 0
    reasons(found)


def test_the_module_never_opens_a_file_for_writing() -> None:
    audit = (
        "import sys, os\n"
        "import vmemmap.sizing.host\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and isinstance(arguments[2], int) "
        "and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):\n"
        "        os._exit(9)\n"
        "    if event in ('os.remove', 'os.rename', 'os.mkdir', 'os.chmod', 'subprocess.Popen', 'socket.connect'):\n"
        "        os._exit(9)\n"
        "sys.addaudithook(hook)\n"
        "vmemmap.sizing.host.host().text()\n"
    )
    assert subprocess.run([sys.executable, "-c", audit], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("root", "size", "said"),
    [("none", None, "expected a directory"), ("ok/proc", None, "neither proc nor sys"), ("ok", "3K", "power of two")],
)
def test_a_wrong_call_is_told_in_one_line(tmp_path: Path, root: str, size: str | None, said: str) -> None:
    (tmp_path / "ok/proc").mkdir(parents=True)
    with pytest.raises(SpecError) as caught:
        host(tmp_path / root, size)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_prints_text_and_json_and_exits_0(tmp_path: Path) -> None:
    files = x86(tmp_path)
    run = [
        sys.executable,
        "-c",
        "import sys; from vmemmap.cli import main; sys.exit(main())",
        "host",
        "--root",
        str(files),
    ]
    text = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert (text.returncode, text.stderr) == (0, "") and text.stdout == host(files).text() + "\n"
    answer = subprocess.run([*run, "--json"], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0 and json.loads(answer.stdout) == host(files).to_dict()
    wrong = subprocess.run([*run[:-1], str(files / "proc/meminfo")], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1 and wrong.stdout == ""
