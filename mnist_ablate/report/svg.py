"""Drawings of a page: each for wide and narrow screens, light and dark, and as files."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from mnist_ablate import plots

NARROW_WIDTH = 4.1
"""Inches of a figure for a phone."""
# The page's own typeface; matplotlib lays out with the wider one that it carries, so text never overflows.
_FONTS = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Picture:
    """A figure for wide and narrow screens, light and dark.

    Parameters
    ----------
    alt
        What it shows, for those who do not see it.
    svg, png
        For wide screens and light paper, as files.
    uris
        Data URIs by ``wide_light``, ``narrow_dark`` and so on.
    """

    alt: str
    svg: str
    png: bytes
    uris: dict[str, str]


def picture(draw: Callable[..., Figure], alt: str) -> Picture:
    """Draw a figure for wide and for narrow screens; the dark theme takes other colours in the same drawing."""
    drawings, png = {}, b""
    for size, width in {"wide": plots.WIDTH, "narrow": NARROW_WIDTH}.items():
        figure = draw(width=width)
        drawings[size] = _svg(figure)
        figure.set_layout_engine("none")  # what was laid out for one file holds for the other
        png = png or _png(figure)
    uris = {
        f"{size}_{theme}": f"data:image/svg+xml;base64,{_base64(plots.in_theme(drawing, theme))}"
        for size, drawing in drawings.items()
        for theme in plots.THEMES
    }
    return Picture(alt, drawings["wide"], png, uris)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _svg(figure: Figure) -> str:
    """Write a figure as SVG: the same bytes for the same results, and text as text."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mnist_ablate"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")), dpi=200)
    drawing = buffer.getvalue()
    # A hundredth of a point is enough, and takes half the space; numbers that are read are between the tags.
    drawing = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), drawing)
    return drawing[drawing.index("<svg") :].replace("'DejaVu Sans'", _FONTS)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None}, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()
