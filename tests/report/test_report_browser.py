"""The page in a real browser: nothing fails, every picture is there, and a phone need not scroll sideways."""

import os

import pytest
from browser import CHROMIUM, Browser

from nndet_psma.stages.report import ReportJob, write_report

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="chromium is not installed: the page is not opened in a browser"
    ),
    pytest.mark.skipif(os.name != "posix", reason="Chromium is spoken to over POSIX pipes"),
]
BROKEN = "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tiny, tmp_path_factory):
    return write_report(
        tiny.paths, ReportJob(tiny.folder, output=tmp_path_factory.mktemp("web") / "report.html")
    )


@pytest.mark.parametrize("width", [1300, 1100, 390])
def test_the_page_opens_without_complaint(browser, page, width):
    browser.problems.clear()
    browser.open(page, width)
    assert browser.evaluate("document.images.length") >= 20
    assert browser.evaluate(BROKEN) == 0
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate("document.querySelectorAll('section').length") == 12
    assert browser.problems == []
    assert len(browser.picture()) > 100_000


@pytest.mark.parametrize("width", [1300, 390])
def test_no_table_has_to_be_scrolled_sideways(browser, page, width):
    browser.open(page, width)
    wide = "[...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth)"
    assert browser.evaluate(f"{wide}.map(s => s.getAttribute('aria-label'))") == []


def test_a_row_is_a_card_on_a_phone_and_names_its_columns(browser, page):
    browser.open(page, 390)
    cell = "document.querySelector('#scores td')"
    assert browser.evaluate(f"getComputedStyle({cell}, '::before').content") == '"Lesions found"'
    assert browser.evaluate("getComputedStyle(document.querySelector('#scores thead')).display") == "none"


def test_charts_are_dark_in_the_dark_and_scans_stay_as_they_are(browser, page):
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.send("Emulation.setEmulatedMedia", features=dark)
    try:
        browser.open(page, 1100)
        shown = "getComputedStyle(document.querySelector('{}')).filter"
        assert browser.evaluate(shown.format("#plan figure img")).startswith("invert")
        assert browser.evaluate(shown.format(".pair img")) == "none"
    finally:
        browser.send("Emulation.setEmulatedMedia", features=[])


def test_every_link_of_the_menu_leads_to_its_section(browser, page):
    browser.open(page, 390)
    script = (
        "[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.getAttribute('href')))"
    )
    assert browser.evaluate(script) is True


def test_the_check_can_fail(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<img src='data:image/png;base64,AAAA'><div style='width:900px'>wide</div>"
        "<script>console.error('loud'); fetch('http://127.0.0.1:9/x').catch(() => 0)</script>"
    )
    browser.problems.clear()
    browser.open(bad, 390)
    assert browser.evaluate(BROKEN) == 1
    assert browser.evaluate("document.documentElement.scrollWidth") > 390
    assert any("loud" in problem for problem in browser.problems)
    assert any("127.0.0.1" in problem for problem in browser.problems)
