"""The pages open in a browser without a network, show each kind of violation once, and can be stepped through."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample import VMEMMAP, document

import vmemmap
from vmemmap.cli import main
from vmemmap.dumps.ptdump import parse_ptdump
from vmemmap.lab.trace import Step, Violation
from vmemmap.report import render, write
from vmemmap.report.charts import Column, chart
from vmemmap.report.glossary import TERMS, linked
from vmemmap.report.lanes import conflicts, descriptor
from vmemmap.report.mapped import mapped
from vmemmap.report.player import Player, player

CAPTURES = Path(__file__).parents[1] / "captures"


def steps_of(raw: dict[str, Any]) -> list[Step]:
    return [Step.from_dict(step) for step in raw["rows"][1]["result"]["trace"]]


def drawn(trace: list[Step]) -> Player:
    found = player(trace, Violation("I6", "hot remove", trace[-1].step, None, ""), "sample", "64K")
    assert found is not None
    return found


def test_the_page_names_nothing_outside_itself_and_allows_its_own_script_only() -> None:
    page = render(document())
    for reference in ("http://", "https://", "<link", "@import", "url(", "src="):
        assert reference not in page, reference
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "default-src 'none'" in page


def test_text_from_the_core_is_escaped() -> None:
    assert "&lt;&amp;&gt;" in render(document())
    assert "<&>" not in render(document())


def test_violations_of_one_kind_share_a_card_and_the_table_leads_to_it() -> None:
    raw = document()
    again = {**raw["rows"][1], "layout": "16K", "kernel": "6.1"}
    raw["rows"].append(again)
    page = render(raw)
    assert page.count('class="kind"') == 2, "the table freed in use, and break-before-make"
    assert page.index("Table freed in use") < page.index("Break-before-make:")
    assert "64K; 16K" in page and "6.12, 6.1" in page
    assert 'href="#kind-1"' in page and 'id="kind-1"' in page
    assert 'href="#row-2"' in page and 'id="row-2"' in page


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    broken = document()
    del broken["rows"][0]["cells"]
    with pytest.raises(Exception, match="cells"):
        write(broken, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
    write(document(), tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_every_step_is_drawn_or_folded_in_its_own_lane() -> None:
    trace = steps_of(document())
    found = drawn(trace)
    assert [step for frame in found.frames for step in frame.steps] == trace
    for frame in found.frames:
        assert {step.actor for step in frame.steps} == {found.actors[frame.lane][0]}
    alone = {frame.steps[0].step for frame in found.frames if len(frame.steps) == 1}
    assert {3, 4, 5, len(trace)} <= alone
    assert [frame.is_fatal for frame in found.frames].count(True) == 1 and found.frames[-1].is_fatal
    assert found.frames[-1].violated == "I6 violated: table freed in use"


def test_descriptors_follow_the_steps_and_are_freed_with_their_table() -> None:
    found = drawn(steps_of(document()))
    assert [(table.title, len(table.cells)) for table in found.tables] == [
        ("PMD table", 1),
        ("PTE table at 0x80440000", 4),
    ]
    states = [(cell.kind, cell.words) for table in found.tables for cell in table.cells]
    assert states[1] == ("rw", "page rw 0x80000000")
    seen = [states[1]]
    for frame in found.frames:
        for number, kind, words in frame.cells:
            states[number] = (kind, words)
        if states[1] != seen[-1]:
            seen.append(states[1])
    assert [kind for kind, _ in seen] == ["rw", "none", "ro", "freed"]
    assert states == found.end[0]
    assert {kind for kind, _ in states[1:]} == {"freed"}


def test_a_translation_is_stale_until_a_tlbi_that_covers_it_and_its_dsb() -> None:
    page, other = 0x00E8000080000703, 0x00E0000081000783
    at = f"pte {VMEMMAP:#x}"

    def held(*more: Step) -> list[list[str]]:
        trace = [Step(1, 0, "a", "write", 8, page, other, place=at), Step(2, 1, "b", "read", 8, other, place=at), *more]
        return drawn(trace).end[1]

    tlbi = Step(3, 0, "a", "tlbi vaale1is", VMEMMAP, place=f"va {VMEMMAP:#x}")
    stale = [f"{at} → page rw 0x80000000"]
    assert held() == [stale, stale]
    assert held(tlbi) == [stale, stale], "not complete before the DSB"
    assert held(tlbi, Step(4, 0, "a", "dsb ishst")) == [stale, stale], "which is none for stores only"
    assert held(tlbi, Step(4, 1, "b", "dsb ish")) == [stale, stale], "nor another CPU's"
    assert held(tlbi, Step(4, 0, "a", "dsb ish")) == [[], []]
    elsewhere = Step(3, 0, "a", "tlbi vaale1is", VMEMMAP + 0x10000, place=f"va {VMEMMAP + 0x10000:#x}")
    assert held(elsewhere, Step(4, 0, "a", "dsb ish")) == [stale, stale]
    local = Step(3, 0, "a", "tlbi vmalle1")
    assert held(local, Step(4, 0, "a", "dsb nsh")) == [[], stale], "a local one is this CPU's alone"


def test_two_reads_of_an_address_are_no_conflict() -> None:
    read = [Step(step=n, cpu=n, actor=str(n), op="read", address=8, old=1) for n in (1, 2)]
    assert conflicts(read) == {}


def test_descriptors_are_shown_in_words() -> None:
    assert descriptor(0) == "none"
    assert descriptor(0x00E8000040000703) == "page rw 0x40000000"
    assert descriptor(0x00E0000040000783) == "page ro 0x40000000"
    assert descriptor(0x0060000040000701) == "block 0x40000000"
    assert descriptor(0x1000000040441003) == "table 0x40441000"
    assert descriptor(42) == "0x2a"


def test_an_empty_trace_has_no_drawing() -> None:
    assert player([], Violation("I1", "a", 0, None, ""), "", "4K") is None


@pytest.mark.parametrize("name", ["6.1-4k/A", "6.1-4k/B", "6.1-64k/B", "7.3-4k/B"])
def test_a_map_shows_every_mapped_byte_once(name: str) -> None:
    dump = parse_ptdump((CAPTURES / f"{name}.ptdump.txt").read_text())
    granule = 65536 if "64k" in name else 4096
    found = mapped(dump, granule)
    assert found is not None and not found.left_out
    inside = [r for r in dump if r.marker == "vmemmap start" and r.columns.text.strip()]
    unit = {4096: 2 << 20, 65536: 512 << 10}[granule]
    shown = sum(
        bar.count * sum(width for _, width, kind in bar.pieces if kind != "none") * unit / 640 for bar in found.bars
    )
    assert abs(shown - sum(r.end - r.start for r in inside)) < unit / 100
    for bar in found.bars:
        assert abs(sum(width for _, width, _ in bar.pieces) - 640) < 0.1


def test_bars_are_as_long_as_their_share_of_the_largest() -> None:
    rows = [{"group": "a", "label": str(n), "ns": n, "saved": None} for n in (0, 5, 20)]
    drawn = chart(rows, [Column("time", "ns", str), Column("saved", "saved", str, gain=True)])
    assert drawn is not None
    ((_, _, listed),) = drawn.groups
    assert [bars for _, bars in listed] == [((0.0, "0.0"), None), ((25.0, "5.0"), None), ((100.0, "20.0"), None)]
    assert chart([], []) is None


def test_paper_has_dark_ink_and_no_head_over_a_step(pages: dict[str, Path], browser: Any) -> None:
    """Also where the screen is dark."""
    look(browser, pages["report"], scheme="dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        style = (
            "const s = getComputedStyle(document.querySelector(arguments[0])); return s.getPropertyValue(arguments[1])"
        )
        assert browser.execute_script(style, ".heads", "position") == "static"
        assert browser.execute_script(style, ".lanes", "overflow-y") == "visible"
        assert browser.execute_script(style, ".bar", "print-color-adjust") == "exact"
        for name in ("ink", "lane0", "lane1", "lane2", "lane3"):
            colour = browser.execute_script(style, ":root", f"--{name}").strip().lstrip("#")
            levels = [
                int(digit * (2 // (len(colour) // 3)), 16) for digit in re.findall("." * (len(colour) // 3), colour)
            ]
            assert sum(levels) < 3 * 128, f"--{name} is pale on paper"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_terms_are_linked_once_and_text_stays_text() -> None:
    page = str(linked("HVO <b> beside HVO and a TLBI"))
    assert page.count('href="#term-hvo"') == 1 and page.count('href="#term-tlbi"') == 1 and "&lt;b&gt;" in page
    whole = render(document())
    assert all(f'id="term-{re.sub("[^a-z]+", "-", term.lower())}"' in whole for term in TERMS)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind of page."""
    folder = tmp_path_factory.mktemp("pages")
    a, b = str(CAPTURES / "6.1-4k/A.npz"), str(CAPTURES / "6.1-4k/B.npz")
    trace = str(folder / "trace.json")
    found = {name: folder / f"{name}.html" for name in ("report", "explore", "check", "diff", "replay", "compare")}
    write(
        document(),
        found["report"],
        [(f"{name}.npz", (CAPTURES / f"6.1-4k/{name}.ptdump.txt").read_text()) for name in "AB"],
        4096,
    )
    explore = [
        "explore",
        "R6",
        "--variant",
        "mmap-only",
        "--kernel",
        "6.12",
        "--seed",
        "3",
        "--html",
        str(found["explore"]),
        "--trace-out",
        trace,
    ]
    assert main(explore) == 1
    assert main(["check", b, "--html", str(found["check"])]) == 0
    compare = ["compare", "R3", "--policy", "fault", "--cpus", "2", "--cpus", "64", "--html", str(found["compare"])]
    assert main(compare) == 0
    assert main(["diff", a, b, "--html", str(found["diff"])]) == 1
    assert main(["replay", trace, "--format", "html", "--out", str(found["replay"])]) == 1
    return found


def test_each_command_makes_the_same_kind_of_page(pages: dict[str, Path]) -> None:
    for name, path in pages.items():
        text = path.read_text()
        assert path.stat().st_size < 3_000_000
        assert 'id="glossary"' in text and "default-src 'none'" in text and "https://" not in text
        assert ("data-player" in text) == (
            name in ("report", "explore", "replay", "compare")
        ) or "[data-player]" in text
    assert "Before: A.npz" in pages["diff"].read_text() and "After: B.npz" in pages["diff"].read_text()
    assert "vmemmap explore R6 --variant mmap-only --kernel 6.12 --seed 3" in pages["explore"].read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        assert not os.environ.get("VMEMMAP_NO_SKIP"), "chromium and chromium-driver are not installed"
        pytest.skip("chromium and chromium-driver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,2000"):
        options.add_argument(argument)
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def look(browser: Any, path: Path, width: int = 1400, scheme: str = "light") -> None:
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(path.as_uri())


def test_pages_open_without_a_network_and_without_an_error(
    pages: dict[str, Path], browser: Any, tmp_path: Path
) -> None:
    for path in pages.values():
        look(browser, path)
        assert browser.find_element("css selector", "h1").is_displayed()
        assert browser.get_log("browser") == []
        asked = [e["message"] for e in browser.get_log("performance") if 'Network.requestWillBeSent"' in e["message"]]
        assert asked and all("file:///" in message for message in asked), asked
        for width in (400, 1400):
            look(browser, path, width)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.save_screenshot(str(tmp_path / "page.png"))
        assert (tmp_path / "page.png").stat().st_size > 10_000


def test_a_trace_is_stepped_through_by_keys_and_buttons(pages: dict[str, Path], browser: Any) -> None:
    look(browser, pages["report"])
    root = browser.find_element("css selector", "[data-player]")

    def state() -> tuple[str, list[str], str]:
        now = root.find_element("css selector", '[aria-current="step"] .n').text
        listed = root.find_elements("css selector", "[data-cell]")
        cells = [" ".join(sorted(cell.get_attribute("class").split())) for cell in listed]
        return now, cells, root.find_element("css selector", "[data-cpu] .held").text

    last = state()
    assert last[0] == str(len(steps_of(document()))) and all("freed" in cell for cell in last[1][1:])
    lanes = root.find_element("css selector", ".lanes")
    lanes.send_keys("\ue012")  # ←
    before = state()
    assert before[0] != last[0] and not any("freed" in cell for cell in before[1])
    lanes.send_keys("\ue014")  # →
    assert state() == last
    lanes.send_keys("\ue011")  # Home
    first = state()
    assert "rw" in first[1][1] and first[2] == "nothing stale"
    root.find_element("css selector", '[data-go="next"]').click()
    root.find_element("css selector", '[data-go="next"]').click()
    after = state()
    assert "none" in after[1][1] and "changed" in after[1][1] and "page rw 0x80000000" in after[2]
    root.find_element("css selector", '[data-go="last"]').click()
    assert state() == last
    assert not root.find_element("css selector", '[data-go="next"]').is_enabled()


def test_a_page_is_whole_without_its_script(pages: dict[str, Path], browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        look(browser, pages["report"])
        frame = browser.find_element("css selector", ".frame.fatal")
        assert frame.is_displayed() and "I6 violated" in frame.text
        assert not browser.find_element("css selector", ".controls").is_displayed()
        assert not browser.find_element("css selector", ".copy").is_displayed()
        assert "freed" in browser.find_element("css selector", ".cells .freed").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("name", ["report", "explore", "check", "diff", "compare"])
def test_axe_finds_no_fault(pages: dict[str, Path], browser: Any, name: str) -> None:
    axe = pytest.importorskip("axe_core_python")
    source = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    browser.set_script_timeout(60)
    run = (
        "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(found => done(found.violations"
        ".filter(v => ['serious', 'critical'].includes(v.impact)).map(v => [v.id, v.nodes[0].html])))"
    )
    for width, scheme in ((400, "light"), (400, "dark"), (1400, "light"), (1400, "dark")):
        look(browser, pages[name], width, scheme)
        browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        browser.execute_script(source)
        assert browser.execute_async_script(run) == [], (name, width, scheme)


def test_the_version_is_on_the_page() -> None:
    assert f"vmemmap {vmemmap.__version__}" in render(document())
