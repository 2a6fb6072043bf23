"""The page of a report: sections of tables and panels, put into the template."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.math_text import to_html, to_text
from pipeline.report.panel import Panel
from pipeline.report.tables import HtmlTable

_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(xlink:href="#|href="#|url\(#)(?=[A-Za-z0-9])')
_SIZE = re.compile(r'(<svg\b[^>]*?) (?:width|height)="[^"]*"')
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Picture:
    """A panel as the page shows it.

    Attributes:
        name: Of its files.
        number: Of the paper's figure; empty for none.
        caption: With its mathematical text as elements.
        svg: The drawing.
    """

    name: str
    number: str
    caption: Markup
    svg: Markup


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        words: What it shows and what to look for.
        texts: Paragraphs.
        tables: Tables of words.
        pictures: Panels.
        listings: Titled texts that are folded away.
    """

    name: str
    title: str
    words: str
    texts: Sequence[str] = ()
    tables: Sequence[HtmlTable] = ()
    pictures: Sequence[Picture] = ()
    listings: Sequence[tuple[str, str]] = ()


def render_page(
    *, title: str, sample: str, facts: Mapping[str, str], text: str, sections: Sequence[Section]
) -> str:
    """The page as well-formed HTML that asks for nothing from outside."""
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["formula"] = to_html
    environment.filters["plain"] = to_text
    return environment.get_template("report.html").render(
        title=title, sample=sample, facts=facts, text=text, sections=sections
    )


def inline(svg: str, panel: Panel) -> Picture:
    """A panel's SVG file as part of a page.

    Identifiers get the panel's name in front, since they must be unique on the page; the fixed
    size goes, so that the panel fills its place on any screen.
    """
    body = _METADATA.sub("", svg[svg.index("<svg") :])
    body = _ID.sub(rf'id="{panel.name}-\1"', body)
    body = _REFERENCE.sub(rf"\g<1>{panel.name}-", body)
    for _ in range(2):
        body = _SIZE.sub(r"\1", body, count=1)
    label = Markup.escape(to_text(panel.caption))
    body = body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    drawing = Markup(body)  # noqa: S704 - our own drawing
    return Picture(panel.name, panel.number, to_html(panel.caption), drawing)
