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


@pytest.mark.parametrize("width", [1100, 390])
def test_the_page_opens_without_complaint(browser, page, width):
    browser.problems.clear()
    browser.open(page, width)
    assert browser.evaluate("document.images.length") >= 20
    assert browser.evaluate(BROKEN) == 0
    assert browser.evaluate("document.documentElement.scrollWidth") == width  # tables scroll inside
    assert browser.evaluate("document.querySelectorAll('section').length") == 12
    assert browser.problems == []
    assert len(browser.picture()) > 100_000


def test_wide_tables_scroll_inside_and_keep_their_caption_in_sight(browser, page):
    browser.open(page, 390)
    wide = "[...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth)"
    assert browser.evaluate(f"{wide}.length") >= 3
    assert (
        browser.evaluate(f"Math.max(...{wide}.map(s => s.querySelector('caption span').offsetWidth))") < 390
    )


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
