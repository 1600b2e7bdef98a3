"""What people type is understood, or refused in one line that says what would be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmemmap import _core
from vmemmap.errors import SpecError
from vmemmap.spec import (
    HUGEPAGE_SIZES,
    VA_BITS,
    Budget,
    MachineSpec,
    format_size,
    parse_budget,
    parse_hugepages,
    parse_machine,
    parse_policy,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4K", 4096),
        ("4k", 4096),
        ("256M", 256 << 20),
        ("1T", 1 << 40),
        ("2 MiB", 2 << 20),
        ("64KB", 65536),
        ("0x1000", 4096),
        (7, 7),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1.5G", "4 4K", "1Z", "0x", "16E", 1 << 64, -1, True, None, 1.0, "1" * 100, "٣M"]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(SpecError, match=r"^boot_memory is ") as caught:
        parse_size(text, "boot_memory")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@given(st.integers(0, (1 << 64) - 1))
def test_a_size_survives_being_printed(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text() | st.integers() | st.floats() | st.none())
def test_no_text_makes_a_parser_fail_in_another_way(text: object) -> None:
    for parse in (parse_size, parse_budget, parse_policy, parse_machine):
        try:
            parse(text)  # type: ignore[operator]
        except SpecError as error:
            assert "\n" not in str(error)


def test_hugepages() -> None:
    assert parse_hugepages(["2M=400G", "1G=512G"], 4096) == {2 << 20: 400 << 30, 1 << 30: 512 << 30}


def test_policies() -> None:
    known = {"update": ["store", "swap"], "free": ["after"]}
    assert parse_policy("update=swap", known) == ("update", "swap")
    with pytest.raises(SpecError, match=r"'updat' is unknown: did you mean update\? \(expected one of update, free\)"):
        parse_policy("updat=swap", known)
    with pytest.raises(SpecError, match="expected one of store, swap"):
        parse_policy("update=x", known)


def test_budgets() -> None:
    assert parse_budget("5000") == parse_budget(5000) == Budget(executions=5000)
    assert parse_budget("10s") == parse_budget(10.0) == Budget(seconds=10)
    assert parse_budget("1.5m") == Budget(seconds=90)
    for bad in ("0", "0s", "-1", "1.5", "s", "10 days", float("nan"), float("inf"), True):
        with pytest.raises(SpecError, match="expected a number of executions"):
            parse_budget(bad)


def test_a_machine() -> None:
    assert parse_machine("") == MachineSpec()
    assert parse_machine(
        "granule=64K, va-bits=52, kernel=6.12, boot_memory=8G, hotplug_memory=4G, hvo=off, 512M=3"
    ) == MachineSpec(
        granule=65536,
        va_bits=52,
        kernel="6.12",
        boot_memory=8 << 30,
        hotplug_memory=4 << 30,
        hvo=False,
        hugepages={512 << 20: 3},
    )
    spec = parse_machine("update=swap", {"update": ["store", "swap"]})
    assert spec.policies == {"update": "swap"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("granule", "expected NAME=VALUE"),
        ("granule=4K,granule=4K", "given twice"),
        ("color=red", "'color' is unknown"),
        ("512M=1", "there are 64K, 2M, 32M, 1G"),
        ("2M=x", "expected a number of pages"),
        ("2M=-1", "expected a number of pages"),
        ("2M=1,2048K=1", "given twice"),
        ("hvo=maybe", "hvo is 'maybe': expected on or off"),
        ("va_bits=52", "LPA2"),
        ("kernel=5", "kernel is '5'"),
        ("boot_memory=much", "boot_memory is 'much'"),
    ],
)
def test_a_machine_that_is_wrong_is_refused_with_its_key(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_machine(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("granule", VA_BITS)
def test_the_names_offered_are_those_of_the_core(granule: int) -> None:
    for va_bits in range(30, 60):
        known = va_bits in VA_BITS[granule]
        try:
            facts = _core.layout(granule, va_bits, "6.12")
        except SpecError:
            assert not known
        else:
            assert known and tuple(facts["hugepage_sizes"]) == HUGEPAGE_SIZES[granule]
