"""The report opens in a browser without a network and shows the trace of each violation."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from sample import document

from vmemmap.lab.trace import Step, Violation
from vmemmap.report import render, write
from vmemmap.report.lanes import conflicts, descriptor, rows, svg


def test_the_page_names_nothing_outside_itself() -> None:
    page = render(document())
    for reference in ("http://", "https://", "<script", "<link", "@import", "url(//", "src="):
        assert reference not in page.replace("http://www.w3.org/2000/svg", ""), reference


def test_text_from_the_core_is_escaped() -> None:
    assert "&lt;&amp;&gt;" in render(document())
    assert "<&>" not in render(document())


def test_each_violation_with_a_trace_has_a_picture_and_the_table_links_to_it() -> None:
    page = render(document())
    assert page.count('<svg class="lanes"') == 1
    assert 'href="#trace-1"' in page
    assert 'id="trace-1"' in page


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    broken = document()
    del broken["rows"][0]["cells"]
    with pytest.raises(Exception, match="cells"):
        write(broken, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
    write(document(), tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_steps_at_which_actors_meet_are_boxed_and_the_others_folded() -> None:
    trace = [Step.from_dict(step) for step in document()["rows"][1]["result"]["trace"]]
    boxed = {row.steps[0].step for row in rows(trace, len(trace) - 1) if row.boxed}
    assert {3, 4, 5} <= boxed
    assert 1 not in boxed
    assert len(trace) in boxed
    assert sum(len(row.steps) for row in rows(trace, len(trace) - 1)) == len(trace)


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


def test_an_empty_trace_has_no_picture() -> None:
    assert svg([], Violation("I1", "a", 0, None, ""), "") == ""


def test_a_browser_opens_the_report_without_a_network(tmp_path: Path) -> None:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        assert not os.environ.get("VMEMMAP_NO_SKIP"), "chromium and chromium-driver are not installed"
        pytest.skip("chromium and chromium-driver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    path = tmp_path / "report.html"
    write(document(), path)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,2000"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.get(path.as_uri())
        picture = browser.find_element("css selector", "svg.lanes")
        assert picture.size["height"] > 200
        assert browser.find_element("css selector", ".step.fatal").is_displayed()
        assert browser.get_log("browser") == []
        requested = [
            entry["message"]
            for entry in browser.get_log("performance")
            if 'Network.requestWillBeSent"' in entry["message"]
        ]
        assert all("file:///" in message for message in requested), requested
        assert browser.save_screenshot(str(tmp_path / "report.png"))
        assert (tmp_path / "report.png").stat().st_size > 10_000
    finally:
        browser.quit()
