"""The page as HTML: whole, self-contained, escaped, free of names and paths."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest

from nndet_psma.report.page.content import Missing, Note, Page, Picture, Section, Table
from nndet_psma.report.page.page import render
from nndet_psma.report.texts import without_paths
from nndet_psma.stages.report import ReportJob, write_report

VOID = {"meta", "link", "img", "br", "hr"}
SECTIONS = ["headline", "plan", "data", "training", "scores", "strata", "comparison", "ablation", "sweep"]
SECTIONS += ["cases", "extremes", "provenance"]


class Checker(HTMLParser):
    """Collects attributes and fails on tags that do not close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.problems = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append((tag, self.getpos()))

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def parsed(html):
    checker = Checker()
    checker.feed(html)
    checker.close()
    return checker


@pytest.fixture(scope="module")
def html(tiny, tmp_path_factory) -> str:
    target = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report(tiny.paths, ReportJob(tiny.folder, output=target)) == target
    return target.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def words(html) -> str:
    """The page without its pictures: base64 may spell anything by chance."""
    return re.sub(r"data:image/\w+;base64,[A-Za-z0-9+/=]+", "", html)


def test_every_section_is_there_in_order_with_content(html):
    keys = [attributes["id"] for attributes in parsed(html).of("section")]
    assert keys == SECTIONS
    for key in keys:
        body = html.split(f'<section id="{key}"')[1].split("</section>")[0]
        assert len(body) > 300, key
        assert f'href="#{key}"' in html
    assert "Not shown" not in html  # everything exists in this model


def test_tags_balance_and_ids_are_unique(html):
    checker = parsed(html)
    assert checker.problems == []
    assert checker.open == []
    ids = [attributes["id"] for _, attributes in checker.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_from_elsewhere(html, words):
    checker = parsed(html)
    images = checker.of("img")
    assert len(images) >= 10
    assert all(re.match(r"data:image/(png|jpeg);base64,", image["src"]) for image in images)
    assert "http" not in words
    assert checker.of("script") == []
    assert [link["href"] for link in checker.of("link")] == ["data:,"]
    assert "url(" not in words
    assert "@import" not in words
    assert len(html) < 8e6


def test_pictures_have_words_and_tables_have_headers(html):
    checker = parsed(html)
    assert all(len(image["alt"]) > 20 for image in checker.of("img"))
    assert all(int(image["width"]) > 0 and int(image["height"]) > 0 for image in checker.of("img"))
    tables = html.split("<table")[1:]
    assert len(tables) >= 8
    assert all("<caption>" in table and 'scope="col"' in table for table in tables)
    assert any(meta.get("name") == "viewport" for meta in checker.of("meta"))


def test_case_ids_are_escaped(html):
    assert "k<b>&1" not in html
    assert "k&lt;b&gt;&amp;1" in html
    assert "97 &lt;HU&gt; voxels" in html


def test_no_patient_and_no_path_of_the_machine(words, tiny):
    assert "PATIENT-" not in words
    assert str(tiny.root) not in words
    assert "/home/" not in words
    assert str(tiny.root.parent) not in words
    assert "read from start.pt" in words  # the file name stays


def test_the_disclaimer_and_the_counts_stand_on_top(words):
    text = " ".join(unescape(words).split())
    assert "Research software, not a medical device" in text
    assert "Scored on 2 test cases of 2 patients with 2 lesions." in text
    assert "Only 2 patients" in text


def test_headline_numbers_are_those_of_the_tiny_model(words):
    # one of two nodes is hit on a slice: 0.5; accepted slice boxes are one hit and one false one: 0.5
    tiles = dict(re.findall(r"<dt>(.*?)</dt>\s*<dd class=\"value\">(.*?)</dd>", words))
    assert tiles["Lesion sensitivity"] == "0.500"
    assert tiles["Slice precision"] == "0.500"
    assert set(tiles) == {"AP at IoU 0.10", "FROC score at IoU 0.10", "Lesion sensitivity", "Slice precision"}


def test_undefined_scores_say_why():
    from nndet_psma.evaluation.detection.scores import Score
    from nndet_psma.report.texts import score_cells

    assert score_cells(Score(None, None, None, why="there are no lesions")) == (
        "undefined",
        "there are no lesions",
    )
    assert score_cells(Score(0.5, 0.25, 1.0)) == ("0.500", "0.250 to 1.000")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("weights /home/me/a.pt used", "weights a.pt used"),
        (
            "file '/srv/x/y z/report.html'",
            "file 'y z/report.html'",
        ),  # blanks end a path; nothing absolute is left
        (r"at C:\Users\me\plan.json.", "at plan.json."),
        ("~/det_data/Task1/x", "x"),
        ("CT/PET at 1/8, 1/4 and n/a", "CT/PET at 1/8, 1/4 and n/a"),
        ("height / width", "height / width"),
    ],
)
def test_paths_are_cut_to_their_last_part(text, clean):
    assert without_paths(text) == clean


def test_markup_in_any_text_is_escaped_and_a_slash_first_in_base64_survives():
    evil = '<script>alert("x")</script>'
    picture = Picture("data:image/jpeg;base64,/9j/4AAQ/abc", (4, 3), evil, evil)
    blocks = [Note(evil), Missing(evil, evil), Table(evil, (evil, "b"), [[evil, "c"]]), picture]
    html = render(Page(evil, evil, evil, [Section("only", evil, blocks)]))
    assert "<script>" not in html
    assert 'src="data:image/jpeg;base64,/9j/4AAQ/abc"' in html
    assert parsed(html).problems == []
