"""``vmemmap host`` on what people have of a host: part of a tree, a sosreport, a must-gather;
and what its command line comes to.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_host import POOL, base, pool, reasons, tree
from vmemmap.errors import SpecError
from vmemmap.sizing.boot_parameters import read_parameters
from vmemmap.sizing.host import host


def meminfo(default_kb: int, total: int, hugetlb_kb: int = 0, memory_kb: int = 64 << 20) -> dict[str, str]:
    lines = [
        f"MemTotal: {memory_kb} kB",
        f"HugePages_Total: {total}",
        "HugePages_Free: 1",
        "HugePages_Rsvd: 0",
        "HugePages_Surp: 0",
    ]
    return {"proc/meminfo": "\n".join([*lines, f"Hugepagesize: {default_kb} kB", f"Hugetlb: {hugetlb_kb} kB", ""])}


@pytest.mark.parametrize(("default_kb", "page", "freed"), [(2048, 4096, 7), (32768, 16384, 7), (524288, 65536, 7)])
def test_meminfo_alone_tells_the_default_pool_and_the_granule(
    tmp_path: Path, default_kb: int, page: int, freed: int
) -> None:
    files = tree(tmp_path, base("aarch64", "5.10.0", 1 << 20), meminfo(default_kb, 24, default_kb * 24 + 4096))
    found = host(files)
    d = found.to_dict()
    assert (d["page_size"], d["default_size_only"], d["bytes_in_other_pools"]) == (page, True, 4 << 20)
    assert [(row["size"], row["count"], row["frames_freed_each"]) for row in d["pools"]] == [
        (default_kb << 10, 24, freed)
    ]
    assert d["bytes_if_all_optimised"] == 24 * freed * page
    assert "/sys/kernel/mm/hugepages" in reasons(found)
    assert "pools of other sizes" in found.text() and "4.00 MiB" in found.text()


def test_a_default_size_that_was_chosen_tells_no_granule(tmp_path: Path) -> None:
    files = tree(tmp_path, base("aarch64", "5.10.0", 1 << 20, cmdline="default_hugepagesz=2M"), meminfo(2048, 4))
    assert host(files).page_size is None
    assert host(files, "64K").page_size == 65536


@pytest.mark.parametrize(
    ("sizes_kb", "default_kb", "page"),
    [
        ((2048, 524288), 524288, 65536),
        ((2048,), 2048, 4096),
        ((32768,), 32768, 16384),
        ((2048, 1048576), 2048, 4096),
        ((524288,), 524288, 65536),
    ],
)
def test_pools_of_a_kernel_before_5_7_tell_the_granule(
    tmp_path: Path, sizes_kb: tuple[int, ...], default_kb: int, page: int
) -> None:
    files = tree(
        tmp_path,
        base("aarch64", "4.18.0-305.el8.aarch64", 1 << 20),
        meminfo(default_kb, 0),
        *(pool(size, 1) for size in sizes_kb),
    )
    assert host(files).page_size == page


@pytest.mark.parametrize(
    ("files", "release", "page", "told"),
    [
        ({"boot/config-6.8.0": "CONFIG_ARM64_16K_PAGES=y\n"}, "6.8.0", 16384, "kernel configuration"),
        ({"sys/kernel/mm/transparent_hugepage/hpage_pmd_size": "536870912\n"}, "6.8.0", 65536, "hpage_pmd_size"),
        ({}, "5.14.0-427.el9.aarch64+64k", 65536, "kernel release"),
        ({}, "6.8.0-31-generic-64k", 65536, "kernel release"),
        ({}, "6.8.0", None, "no file"),
    ],
)
def test_other_files_tell_the_granule(
    tmp_path: Path, files: dict[str, str], release: str, page: int | None, told: str
) -> None:
    found = host(tree(tmp_path, base("aarch64", release, 1 << 20), files))
    assert (found.page_size, found.page_size_from) == (page, told)


@pytest.mark.parametrize(
    ("words", "page", "pages", "ignored"),
    [
        ("hugepagesz=1G hugepages=4", 65536, {}, ["hugepagesz=1G", "hugepages=4"]),
        (
            "hugepagesz=1G hugepages=4 hugepagesz=512M hugepages=2",
            65536,
            {512 << 20: 2},
            ["hugepagesz=1G", "hugepages=4"],
        ),
        ("hugepages=9", 4096, {2 << 20: 9}, []),
        ("default_hugepagesz=1G hugepages=9", 4096, {1 << 30: 9}, []),
        ("hugepagesz=2M hugepages=0:2,1:3 hugepages=7", 4096, {2 << 20: 5}, ["hugepages=7"]),
        ("hugepagesz=16G hugepages=1", 16384, {}, ["hugepagesz=16G", "hugepages=1"]),
        ("hugepagesz=0x200000 hugepages=x", 4096, {}, ["hugepages=x"]),
    ],
)
def test_parameters_that_the_kernel_ignores_are_named(
    words: str, page: int, pages: dict[int, int], ignored: list[str]
) -> None:
    default = {4096: 2, 16384: 32, 65536: 512}[page] << 20
    asked = read_parameters(words.split(), "aarch64", page, [], default)
    assert (asked.pages, [each.parameter for each in asked.ignored]) == (pages, ignored)


@pytest.mark.parametrize(
    ("cmdline", "why"),
    [
        ("hugepagesz=512M hugepages=200", "more than the memory"),
        ("hugepagesz=512M hugepages=100", "no more free pages"),
        ("hugepagesz=16G hugepages=2 hugetlb_cma=32G", "hugetlb_cma"),
    ],
)
def test_a_pool_that_is_smaller_than_asked_says_why(tmp_path: Path, cmdline: str, why: str) -> None:
    files = tree(
        tmp_path,
        base("aarch64", "6.12.1", 1 << 20, cmdline=cmdline),
        meminfo(524288, 3),
        pool(2048, 0),
        pool(524288, 3),
        pool(16777216, 0),
    )
    found = host(files)
    [short] = found.to_dict()["smaller_than_asked"]
    assert why in short["why"] and short["why"] in found.text()


def test_a_sosreport_is_read_by_its_command_output(tmp_path: Path) -> None:
    files = {
        "sos_commands/kernel/uname_-a": "Linux box 5.14.0-427.el9.aarch64+64k #1 SMP PREEMPT_DYNAMIC "
        "Fri aarch64 aarch64 aarch64 GNU/Linux\n",
        "sos_commands/kernel/sysctl_-a": "kernel.arch = aarch64\n"
        "vm.hugetlb_optimize_vmemmap = 1\nvm.nr_hugepages = 3\n",
        "proc/cmdline": "ro hugepagesz=1G hugepages=4\n",
        "sys/devices/system/node/node0/hugepages/hugepages-524288kB/nr_hugepages": "3\n",
        "sys/devices/system/node/node1/hugepages/hugepages-524288kB/nr_hugepages": "5\n",
        **meminfo(524288, 8),
    }
    copy = tree(tmp_path / "in/sosreport-box", files)
    for root in (copy, tmp_path / "in"):
        d = host(root).to_dict()
        assert (d["machine"], d["kernel_release"], d["page_size"]) == ("aarch64", "5.14.0-427.el9.aarch64+64k", 65536)
        assert (d["hvo"]["available"], d["hvo"]["on"], [row["count"] for row in d["pools"]]) == (True, True, [8])
        assert [each["parameter"] for each in d["ignored_parameters"]] == ["hugepagesz=1G", "hugepages=4"]
    tree(tmp_path / "in/other", base("x86_64", "6.1.0", 1 << 20))
    with pytest.raises(SpecError, match=r"describes several hosts, give one: .*sosreport-box"):
        host(tmp_path / "in")


NODE = """---
apiVersion: v1
kind: Node
metadata:
  name: worker-0
status:
  allocatable:
    hugepages-512Mi: 12Gi
  capacity:
    cpu: "80"
    hugepages-2Mi: "0"
    hugepages-512Mi: 12Gi
    hugepages-16Gi: 0
    memory: 267386880Ki
  nodeInfo:
    architecture: arm64
    kernelVersion: 5.14.0-427.el9.aarch64+64k
"""


def test_a_node_of_a_must_gather_is_read(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {"must-gather/cluster-scoped-resources/core/nodes/worker-0.yaml": NODE, "must-gather/version": "4.16\n"},
    )
    for root in (tmp_path / "must-gather", tmp_path / "must-gather/cluster-scoped-resources/core/nodes/worker-0.yaml"):
        found = host(root)
        d = found.to_dict()
        assert (d["machine"], d["page_size"], d["memory"]) == ("aarch64", 65536, 267386880 << 10)
        assert [(row["name"], row["count"]) for row in d["pools"]] == [("2M", 0), ("512M", 24), ("16G", 0)]
        assert d["pools"][1]["free_hugepages"] is None
        json.dumps(d)
        found.text()


@given(
    st.text(st.sampled_from("hugepagesz=default_cma0123456789KMG:, x-"), max_size=80),
    st.sampled_from([None, 4096, 65536]),
)
def test_no_command_line_brings_it_down(words: str, page: int | None) -> None:
    asked = read_parameters(words.split(), "aarch64", page, [2 << 20], 2 << 20)
    assert all(count >= 0 for count in asked.pages.values())


@given(
    st.lists(
        st.sampled_from(
            [*NODE.splitlines(), "    hugepages-0Mi: 4", "    hugepages-2Mi: 99999999999999999999Ti", "  capacity:"]
        ),
        max_size=20,
    )
)
@settings(deadline=None, max_examples=40)
def test_no_yaml_brings_it_down(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("node") / "n.yaml"
    path.write_text("\n".join(["kind: Node", *lines]) + "\n")
    host(path).text()


def test_pools_beside_a_copy_are_of_sys(tmp_path: Path) -> None:
    files = tree(
        tmp_path,
        base("aarch64", "6.12.1", 1 << 20),
        meminfo(2048, 99),
        pool(2048, 7),
        {POOL.format(64) + "nr_hugepages": "1\n"},
    )
    assert {row["name"]: row["count"] for row in host(files).to_dict()["pools"]} == {"64K": 1, "2M": 7}
