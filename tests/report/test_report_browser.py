"""The report in a browser: complete, readable on any screen, by keyboard and aloud."""

from itertools import pairwise

import pytest
from browser import find_browser, open_page

pytest.importorskip("matplotlib")
pytest.importorskip("mplhep")
pytest.importorskip("jinja2")

from report_fixtures import draw, make_full_inputs


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return draw(make_full_inputs(), tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def tab(report):
    """The page in a browser, on a laptop's screen."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium is installed")
    with open_page(program) as tab:
        tab.resize(1280)
        tab.open(report / "index.html")
        yield tab


# Names of panels with words that reach over the drawing's edge, or without any size.
CLIPPED = """[...document.querySelectorAll("figure")].filter(figure => {
  const frame = figure.querySelector("svg").getBoundingClientRect();
  const words = [...figure.querySelectorAll('g[id*="-text_"], g[id*="-legend_"]')];
  return frame.height < 100 || words.length < 4 || words.some(word => {
    const box = word.getBoundingClientRect();
    return box.width > 0 && (box.left < frame.left - 1 || box.right > frame.right + 1
      || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
  });
}).map(figure => figure.id)"""


def test_a_browser_complains_of_nothing_and_asks_for_nothing(tab, report):
    assert tab.complaints == []
    outside = [url for url in tab.requests if not url.startswith("data:")]
    assert outside == [(report / "index.html").as_uri()]


def test_no_panel_is_clipped_in_a_browser(tab):
    assert tab.ask("document.querySelectorAll('figure svg').length") > 15
    assert tab.ask(CLIPPED) == []
    label = """document.querySelector('figure g[id*="-text_"]')"""
    tab.ask(f"{label}.setAttribute('transform', 'translate(2000 0)')")
    assert len(tab.ask(CLIPPED)) == 1
    tab.ask(f"{label}.removeAttribute('transform')")


def test_every_link_leads_somewhere_in_a_browser(tab, report):
    links = tab.ask("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    anchors = {link for link in links if link.startswith("#")}
    assert len(anchors) > 10
    for anchor in anchors:
        assert tab.ask(f"document.getElementById('{anchor[1:]}') !== null"), anchor
    assert all((report / link).is_file() for link in set(links) - anchors)


def test_a_phone_shows_it_without_scrolling_sideways(tab):
    tab.resize(390, 844, is_phone=True)
    assert tab.ask("document.documentElement.scrollWidth") <= 390
    assert tab.ask(CLIPPED) == []
    tab.resize(1280)


def test_it_can_be_read_with_the_keyboard_and_aloud(tab):
    levels = tab.ask("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert tab.ask("[...document.querySelectorAll('figure svg')].every(s => s.ariaLabel)")
    assert tab.ask("[...document.querySelectorAll('th')].every(h => h.scope)")
    tab.press("Tab")
    assert tab.ask("document.activeElement.className") == "skip"
    assert tab.ask("document.activeElement.getBoundingClientRect().left") >= 0


def test_print_cuts_no_figure_in_two(tab):
    tab.call("Emulation.setEmulatedMedia", media="print")
    rules = "[...document.querySelectorAll('figure, tr')].map(f => getComputedStyle(f).breakInside)"
    assert set(tab.ask(rules)) == {"avoid"}
    assert tab.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    tab.call("Emulation.setEmulatedMedia", media="")
