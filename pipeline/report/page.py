"""The page of a report: sections of tables and panels, put into the template."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.headline import HtmlTable

_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(xlink:href="#|href="#|url\(#)(?=[A-Za-z0-9])')
_SIZE = re.compile(r'(<svg\b[^>]*?) (?:width|height)="[^"]*"')
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Picture:
    """A panel as the page shows it."""

    name: str
    caption: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        look_for: One or two sentences on what to look for.
        pictures: Panels.
        tables: Tables of words.
    """

    name: str
    title: str
    look_for: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[HtmlTable] = ()


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
    return environment.get_template("report.html").render(
        title=title, sample=sample, facts=facts, text=text, sections=sections
    )


def inline(svg: str, name: str, caption: str) -> Picture:
    """An SVG file as part of a page.

    Identifiers get the panel's name in front, since they must be unique on the page; the fixed
    size goes, so that the panel fills its place on any screen.
    """
    body = _METADATA.sub("", svg[svg.index("<svg") :])
    body = _ID.sub(rf'id="{name}-\1"', body)
    body = _REFERENCE.sub(rf"\g<1>{name}-", body)
    for _ in range(2):
        body = _SIZE.sub(r"\1", body, count=1)
    label = Markup.escape(caption)
    body = body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return Picture(name, caption, Markup(body))  # noqa: S704 - our own drawing
