"""Machines of the sizes that people have, and what is refused because no such machine exists."""

import pytest

import vmemmap


@pytest.mark.parametrize("granule, va_bits, memory", [("4K", 39, "1T"), ("16K", 36, "64G"), ("64K", 42, "4T")])
def test_memory_that_the_linear_map_cannot_hold_is_refused(granule, va_bits, memory):
    with pytest.raises(vmemmap.VmemmapError, match="linear map"):
        vmemmap.Machine(granule=granule, va_bits=va_bits, boot_memory=memory)


@pytest.mark.parametrize("granule, va_bits, memory", [("4K", 48, "17T"), ("16K", 48, "65T"), ("64K", 52, "257T")])
def test_memory_of_more_pages_than_are_modelled_is_refused(granule, va_bits, memory):
    with pytest.raises(vmemmap.SpecError, match=r"at most 2\^32 are modelled"):
        vmemmap.Machine(granule=granule, va_bits=va_bits, boot_memory=memory, linear_map="blocks")


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize("granule, size", [("4K", "2M"), ("64K", "512M")])
def test_a_tebibyte_of_blocks_boots_fills_a_pool_and_takes_more_memory(granule, size, kernel):
    machine = vmemmap.Machine(
        granule=granule, kernel=kernel, boot_memory="1T", hotplug_memory="64G", linear_map="blocks", hvo=True
    )
    pool = machine.hugetlb[size]
    pool.nr_hugepages = 1000
    assert pool.nr_hugepages == 1000
    blocks = machine.memory.add("64G")
    blocks.online()
    assert machine.check() == []
    blocks.offline()
    machine.memory.remove(blocks)
    pool.nr_hugepages = 0
    assert pool.nr_hugepages == 0
    assert machine.check() == []
