"""``vmemmap oops`` on made-up logs in the forms of many kernels: why each faulted, and no text brings it down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmemmap.cli import main
from vmemmap.dumps.dump import Hints
from vmemmap.dumps.esr import decode
from vmemmap.dumps.oops import Oops, explain
from vmemmap.errors import ImageError, SpecError, VmemmapError

VMEMMAP = 0xFFFFFC0000209034
TABLES = {"pgd": 0x100000007FFFF003, "p4d": 0x100000007FFFF003, "pud": 0x100000007FFFE003, "pmd": 0x100000004A2F1003}
RW, RO = 0x00E800004A3C0703, 0x00E000004A3C0783


def oops(
    address: int = VMEMMAP,
    esr: int = 0x96000007,
    entries: dict[str, int] | None = None,
    *,
    release: str = "6.1.0-13-arm64",
    pages: str = "4k pages, 48-bit VAs",
    stamp: bool = True,
    headline: str = "Unable to handle kernel paging request at virtual address",
) -> str:
    words = ", ".join(
        f"{name}={word:016x}" for name, word in (TABLES | {"pte": 0} if entries is None else entries).items()
    )
    lines = [
        f"{headline} {address:016x}",
        "Mem abort info:",
        f"  ESR = 0x{esr:016x}",
        "  EC = 0x25: DABT (current EL), IL = 32 bits",
        f"swapper pgtable: {pages}, pgdp=0000000041a8d000",
        f"[{address:016x}] {words}",
        f"Internal error: Oops: {esr:016x} [#1] SMP",
        f"CPU: 1 PID: 77 Comm: test Not tainted {release} #1",
        "pc : somewhere+0x10/0x20",
    ]
    return "".join(f"[   12.3456{n:02}] {line}\n" if stamp else f"{line}\n" for n, line in enumerate(lines))


def told(text: str, **hints: str) -> Oops:
    found = explain(text, Hints.parse(**hints))
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert found.reason in found.text_lines()
    return found


@pytest.mark.parametrize(
    ("esr", "entries", "why", "symptoms"),
    [
        (0x96000007, TABLES | {"pte": 0}, "the pte is zero", {"I2"}),
        (0x96000006, {k: TABLES[k] for k in ("pgd", "p4d", "pud")} | {"pmd": 0}, "the pmd is zero", {"I2", "I6"}),
        (0x9600004F, TABLES | {"pte": RO}, "a write, and the pte is read-only", {"I8", "I10"}),
        (0x96000007, TABLES | {"pte": RW}, "the pte is valid now", {"I2", "I5"}),
        (0x96000007, TABLES | {"pte": RW & ~1 | 1 << 11}, "present-invalid (bit 0 clear, bit 11", {"I30"}),
        (0x96000007, TABLES | {"pmd": 0x0068000041000700}, "the valid bit", {"I30"}),
        (0x9600000B, TABLES | {"pte": RW & ~(1 << 10)}, "the access flag of the pte is clear", {"I30"}),
        (0x96000030, TABLES | {"pte": RW}, "two TLB entries", {"I19"}),
        (0x96000016, TABLES, "the memory itself", {"I30", "I1"}),
        (0x96000007, TABLES | {"pte": RW & ~2}, "of a type that its level does not have", {"I30"}),
        (0x96000021, TABLES | {"pte": RW}, "the tables have no part", set()),
    ],
)
def test_the_entry_that_decides_says_why(esr: int, entries: dict[str, int], why: str, symptoms: set[str]) -> None:
    if why == "the valid bit":
        entries = {name: entries[name] for name in ("pgd", "p4d", "pud", "pmd")}
    found = told(oops(esr=esr, entries=entries), memstart="0x40000000")
    assert why in found.reason
    assert {each.invariant for each in found.symptoms} == symptoms
    assert found.region == "vmemmap" and found.struct_page is not None
    assert (found.struct_page.pfn, found.struct_page.offset, found.struct_page.absolute) == (0x48240, 0x34, True)
    assert any("2M: head PFN 0x48200, page 64 of 512" in words for words in found.struct_page.hugepages)
    assert found.syndrome is not None and found.syndrome.value == esr


def test_without_memstart_a_pfn_counts_from_the_linear_map() -> None:
    found = told(oops())
    assert found.struct_page is not None and (found.struct_page.pfn, found.struct_page.absolute) == (0x8240, False)


@pytest.mark.parametrize(
    ("address", "region", "physical"),
    [
        (0xFFFF000008200000, "linear map", 0x48200000),
        (0xFFFF800008000000, "vmalloc", None),
        (0x18, "the first page: a null pointer", None),
        (0x0000AAAABBBB0000, "user space", None),
        (0x00FF000000000000, "between user and kernel addresses", None),
    ],
)
def test_other_regions_have_no_struct_page_and_no_symptom(address: int, region: str, physical: int | None) -> None:
    found = told(oops(address), memstart="0x40000000")
    assert (found.region, found.physical, found.struct_page, found.symptoms) == (region, physical, None, ())


@pytest.mark.parametrize(
    ("release", "address", "pages", "region"),
    [
        ("6.12.1", 0xFFFFFDFFC0209034, "4k pages, 48-bit VAs", "vmemmap"),
        ("7.3.4+", 0xFFFFFDFFC0209034, "4k pages, 48-bit VAs", "vmemmap"),
        ("5.10.0-60", 0xFFFFFDFFFFE09034, "4k pages, 48-bit VAs", "vmemmap"),
        ("4.19.90", 0xFFFF7E0000209034, "4k pages, 48-bit VAs", "vmemmap"),
        ("4.19.90", 0xFFFF800000209034, "4k pages, 48-bit VAs", "linear map"),
        ("6.1.0", 0xFFFFFFC000209034, "64k pages, 48-bit VAs", "vmemmap"),
        ("6.12.1", 0xFFFFFC1FC0209034, "64k pages, 52-bit VAs", "vmemmap"),
        ("6.12.1", 0xFFFFFFBFC0209034, "16k pages, 47-bit VAs", "vmemmap"),
    ],
)
def test_the_layout_is_that_of_the_release(release: str, address: int, pages: str, region: str) -> None:
    found = told(oops(address, entries={"pgd": 0}, release=release, pages=pages))
    assert found.region == region and found.text.release is not None
    assert found.walk[0].kind == "none" and found.decides == found.walk[0]


def test_folded_levels_are_one() -> None:
    entries = {
        "pgd": 0x100000007FFFF003,
        "p4d": 0x100000007FFFF003,
        "pud": 0x100000007FFFF003,
        "pmd": 0x100000007FFFE003,
        "pte": 0,
    }
    found = told(oops(0xFFFFFFC000209034, entries=entries, pages="64k pages, 48-bit VAs"))
    assert [step.level for step in found.walk] == [1, 2, 3]


OLD = """Unable to handle kernel paging request at virtual address ffff7e0000209034
pgd = ffffffc0753f9000
[ffff7e0000209034] *pgd=000000007ffff003, *pud=000000007fffe003, *pmd=0000000000000000
Internal error: Oops: 96000006 [#1] PREEMPT SMP
CPU: 0 PID: 77 Comm: test Tainted: G        W       4.4.131 #2
"""


def test_an_oops_before_4_15_says_no_machine() -> None:
    found = told(OLD)
    assert (found.granule, found.va_bits, found.region) == (4096, 48, "vmemmap")
    assert any("are assumed" in note for note in found.notes) and "the pmd is zero" in found.reason
    with pytest.raises(SpecError, match="the oops says"):
        explain(oops(), Hints.parse(granule="64K"))


@pytest.mark.parametrize(
    "prefix", ["", "> ", "<1>", "[   12.345678][  T123] ", "Nov  2 12:00:00 box kernel: [    1.5] "]
)
def test_what_stands_before_the_lines_does_not_matter(prefix: str) -> None:
    text = oops(stamp=False)
    noisy = "".join(f"{prefix}{line}\n{prefix}other CPU talks\n" for line in text.splitlines())
    assert told(noisy).to_dict() == told(text).to_dict()


def test_an_entry_line_that_was_cut_in_two_is_joined() -> None:
    text = oops(entries=TABLES | {"pte": RO}, esr=0x9600004F, stamp=False)
    assert told(text.replace(", pud=", "\n, pud=")).to_dict() == told(text).to_dict()


def test_the_next_oops_is_counted_and_not_mixed_in() -> None:
    found = told(oops() + oops(0x18, esr=0x96000004, entries={"pgd": 0}))
    assert found.text.more == 1 and found.text.address == VMEMMAP and len(found.walk) == 4


@pytest.mark.parametrize(
    ("esr", "fault", "level", "write", "instruction"),
    [
        (0x96000047, "translation", 3, True, False),
        (0x9600000E, "permission", 2, False, False),
        (0x8600000F, "permission", 3, None, True),
        (0x9600002B, "translation", -1, False, False),
        (0x96000144, "translation", 0, None, False),
        (0x96000030, "TLB conflict", None, False, False),
        (0x02000000, "other", None, None, False),
    ],
)
def test_esr_is_taken_apart(esr: int, fault: str, level: int | None, write: bool | None, instruction: bool) -> None:
    found = decode(esr)
    assert (found.fault, found.level, found.write, found.instruction) == (fault, level, write, instruction)


def test_what_is_no_oops_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    path.write_text("nothing here\n")
    with pytest.raises(ImageError, match="no arm64 oops"):
        explain("nothing here\n")
    assert main(["oops", str(path)]) == 2 and main(["oops", str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    path.write_text(oops())
    assert main(["oops", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["symptom_of"][0]["invariant"] == "I2"


@given(st.binary(max_size=300), st.integers(0, 1 << 30))
@settings(deadline=None, max_examples=150)
def test_no_text_brings_it_down(noise: bytes, at: int) -> None:
    text = oops().encode()
    cut = at % len(text)
    for data in (noise, text[:cut] + noise + text[cut:], text[:cut] + noise + text[cut + len(noise) :], text[:cut]):
        try:
            told(data.decode("utf-8", "replace"))
        except VmemmapError as error:
            assert "\n" not in str(error)


@given(
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 32) - 1),
    st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=150)
def test_no_words_bring_it_down(address: int, esr: int, words: list[int]) -> None:
    told(oops(address, esr, dict(zip(TABLES | {"pte": 0}, words, strict=False))))
