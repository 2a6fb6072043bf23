"""Labels with mathematical text as a page, a screen reader and a data file need them."""

import re
from math import floor, log10

from markupsafe import Markup, escape

_MATH = re.compile(r"\$([^$]*)\$")
_FONT = re.compile(r"\\(?:mathrm|mathit|text|vec)\s*\{([^{}]*)\}")
_NAMES = "alpha Delta zeta eta lambda mu rho sigma langle rangle pm times cdot geq leq approx ,"
_SIGNS = dict(zip(_NAMES.split(), "αΔζηλμ\u03c1\u03c3\u27e8\u27e9±\u00d7·≥≤≈\u2009", strict=True))
_SIGN = re.compile(r"\\([A-Za-z]+|,)\s?")
_SHIFTED = re.compile(r"([_^])(?:\{([^{}]*)\}|(.))")
_TAGS = {"_": "sub", "^": "sup"}
_UNIT = re.compile(r"\s*\[([^\]]*)\]$")


def to_html(label: str) -> Markup:
    """The label with subscripts and superscripts as elements; all else is escaped."""
    pieces = _MATH.split(label)
    return Markup("").join(
        _formula(piece) if number % 2 else escape(piece) for number, piece in enumerate(pieces)
    )


def to_text(label: str) -> str:
    """The label as words to be read aloud: what is shifted stands behind a space."""
    return _MATH.sub(lambda found: _bare(_SHIFTED.sub(r" \2\3", _signs(found[1]))), label)


def split_unit(label: str) -> tuple[str, str]:
    """A label and the unit in brackets at its end; no unit gives an empty text."""
    found = _UNIT.search(label)
    return (label, "") if found is None else (label[: found.start()], found[1])


def decimals_of(error: float, fewest: int, without: int) -> int:
    """Decimals, at most six, that show an error's first digit; `without` where there is none."""
    return min(max(-floor(log10(error)), fewest), 6) if error > 0 else without


def _formula(math: str) -> Markup:
    """Shifted pieces in order; what is between them is escaped."""
    rest, out = _signs(math), Markup("")
    while found := _SHIFTED.search(rest):
        tag = _TAGS[found[1]]
        inner = _bare(found[2] if found[2] is not None else found[3])
        out += escape(_bare(rest[: found.start()]))
        out += Markup("<{}>{}</{}>").format(Markup(tag), inner, Markup(tag))  # noqa: S704
        rest = rest[found.end() :]
    return out + escape(_bare(rest))


def _signs(math: str) -> str:
    previous = None
    while previous != math:  # fonts may lie within each other
        previous, math = math, _FONT.sub(r"{\1}", math)
    math = math.replace("{{", "{").replace("}}", "}")
    return _SIGN.sub(lambda found: _SIGNS.get(found[1], found[1]), math)


def _bare(math: str) -> str:
    return math.replace("{", "").replace("}", "").replace("-", "\u2212")
