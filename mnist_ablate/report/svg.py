"""Drawings of a page: each as files, and as markup that follows the page's theme and the width of the screen."""

import base64
import hashlib
import io
import itertools
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from mnist_ablate.plots import THEMES, WIDTH
from mnist_ablate.plots.style import own_settings, pdf, png

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
    inline
        Markup for a page: two drawings of the classes ``wide`` and ``narrow``, one of which the page's style shows.
        Their colours are the page's variables ``--ink``, ``--blue`` and so on, see `mnist_ablate.plots.Theme`.
    draw
        Draws it again, in a ``width``.
    """

    alt: str
    svg: str
    png: bytes
    inline: str
    draw: Callable[..., Figure] = field(repr=False, compare=False)

    @property
    def pdf(self) -> bytes:
        """The figure for a paper."""
        with own_settings():
            return pdf(self.draw(width=WIDTH))


def picture(draw: Callable[..., Figure], alt: str) -> Picture:
    """Draw a figure for wide and for narrow screens; `draw` takes the ``width`` in inches."""
    with own_settings():
        wide, narrow = draw(width=WIDTH), draw(width=NARROW_WIDTH)
    file = svg(wide)
    wide.set_layout_engine("none")  # the layout of one file holds for the other
    return Picture(alt, file, png(wide), inline(file, "wide") + "\n" + inline(svg(narrow), "narrow"), draw)


def svg(figure: Figure) -> str:
    """Write a figure as SVG, for files: the same bytes for the same results, text as text, and nothing twice."""
    buffer = io.StringIO()
    with own_settings():
        figure.set_dpi(100)  # of what is drawn as pixels: 200 would take three times the space
        canvas: Any = FigureCanvasSVG(figure)  # unlike `savefig`, which draws twice
        canvas.print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(' xmlns="http://www.w3.org/2000/svg"', "").replace("xlink:href", "href")
    root = ET.fromstring(text)  # noqa: S314 # matplotlib wrote it
    size = {name: root.attrib[name] for name in ("width", "height", "viewBox")}
    _clean(root)
    _draw_together(root)
    root.attrib = {"xmlns": "http://www.w3.org/2000/svg"} | size | {"style": f"{_STYLE};font-family:{_FONTS}"}
    text = ET.tostring(root, encoding="unicode").replace(" />", "/>").replace("><", ">\n<")
    short = {name: f"i{i}" for i, name in enumerate(re.findall(r' id="([^"]+)"', text), start=1)}
    return re.sub(r'(?<=id=")[^"]+|(?<=href="#)[^"]+|(?<=url\(#)[^)]+', lambda name: short[name[0]], text)


def inline(drawing: str, kind: str) -> str:
    """Turn the text of a file into markup of a page: the page's colours, and identifiers of no other drawing."""
    prefix = f"{kind[0]}{hashlib.sha256(drawing.encode()).hexdigest()[:6]}-"
    variables = {colour: f"var(--{name})" for name, colour in asdict(THEMES["light"]).items()}

    def of_page(tag: re.Match[str]) -> str:
        text = re.sub(r'(?<=id=")|(?<=href="#)|(?<=url\(#)', prefix, tag[0])
        return re.sub("|".join(variables), lambda colour: variables[colour[0]], _masked(text))

    opening, body = drawing.split(">", maxsplit=1)
    size = re.search(r'viewBox="[^"]*"', opening)
    return f'<svg class="{kind}" {size[0] if size else ""}>' + re.sub(r"<[^>]+>", of_page, body)


def themed(drawing: str) -> str:
    """Turn the text of a file into one that follows the reader's choice of light or dark, on paper of that colour."""
    opening = drawing.split(">", maxsplit=1)[0]
    page = inline(drawing, "wide").split(">", maxsplit=1)[1]
    light, dark = (
        ";".join(f"--{name}:{colour}" for name, colour in asdict(THEMES[theme]).items()) for theme in ("light", "dark")
    )
    style = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return f'{opening}>\n<style>{style}</style>\n<rect width="100%" height="100%" style="fill:var(--paper)"/>{page}'


def _masked(tag: str) -> str:
    """Turn an image in one colour into a mask over that colour, which a page can change; leave other tags."""
    data = re.search(r'href="data:image/png;base64,([^"]*)"', tag)
    pixels = imread(io.BytesIO(base64.b64decode(data[1]))) if data else np.empty((0, 0, 0))
    if pixels.shape[2] < 4 or pixels[..., 3].min() == 1:
        return tag
    strongest = pixels.reshape(-1, 4)[pixels[..., 3].argmax()][:3]
    colours = asdict(THEMES["light"]).values()
    colour = min(colours, key=lambda colour: float(np.abs(np.subtract(to_rgb(colour), strongest)).max()))
    name = f"m{hashlib.sha256(tag.encode()).hexdigest()[:8]}"
    covered = f'<rect width="100%" height="100%" style="fill:{colour}" mask="url(#{name})"/>'
    return f'<mask id="{name}" style="mask-type:alpha">{tag}</mask>{covered}'


# ---- Less markup: matplotlib writes ten times what a drawing needs ----

_STYLE = "stroke-linejoin:round;stroke-linecap:butt"
_CIRCLE = re.compile(r"M-?0 (?P<radius>[\d.]+)(?:C[^CLM]+){8}z")


def _clean(element: ET.Element) -> None:
    """Take out of an element, and of all within, what does not show, and join groups of one look."""
    children: list[ET.Element] = []
    for child in element:
        _clean(child)
        if child.tag in ("style", "metadata") or child.get("style") == "fill:none":
            continue
        if child.tag == "g" and not child.attrib:
            children += child
        elif child.tag == "g" and children and children[-1].tag == "g" and children[-1].attrib == child.attrib:
            children[-1].extend(child)
        elif len(child) or child.tag not in ("g", "defs"):
            children.append(child)
    element[:] = children
    if element.tag == "g":
        element.attrib.pop("id", None)
    if element.tag == "text":
        element.set("style", re.sub(r"font-family:[^;]*; ?", "", element.get("style", "")))
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
    else:
        element.text = None
    element.tail = None
    for name in {"d", "x", "y", "transform", "style"} & set(element.attrib):
        element.set(name, _short(element.attrib[name]))


def _short(value: str) -> str:
    """Shorten numbers to two digits, and leave out spaces and the letters that a path implies."""
    value = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
    value = value.replace("stroke-dashoffset: 0; ", "")
    value = re.sub(r"\s*([MLCQz:;])\s*", r"\1", value)
    return value.strip() if re.search("[CQ:]", value) else value.strip().replace("L", " ")


def _draw_together(root: ET.Element) -> None:
    """Draw dots of one look as one path, and a shape that is used once in its place; say once how a shape looks."""
    shapes = {name: shape for shape in root.iter("path") if (name := shape.get("id"))}
    for group in list(root.iter("g")):
        looks = itertools.groupby(list(group), lambda child: (child.get("href", "")[1:], child.get("style", "")))
        group[:] = [child for (name, style), alike in looks for child in _joined(list(alike), shapes.get(name), style)]
    uses_of: dict[str, list[ET.Element]] = {}
    for use in root.iter("use"):
        uses_of.setdefault(use.attrib["href"][1:], []).append(use)
    for name, uses in uses_of.items():
        if len({use.get("style") for use in uses}) == 1:
            shapes[name].set("style", f"{uses[0].get('style')};{shapes[name].get('style', '')}".strip(";"))
            for use in uses:
                del use.attrib["style"]
    for parent in list(root.iter()):
        for defs in parent.findall("defs"):
            defs[:] = [shape for shape in defs if shape.tag != "path" or shape.get("id") in uses_of]
            if not len(defs):
                parent.remove(defs)


def _joined(alike: list[ET.Element], shape: ET.Element | None, style: str) -> list[ET.Element]:
    """Return what draws the same as elements that use one shape in one style."""
    if shape is None or shape.get("style"):
        return alike
    if circle := _CIRCLE.fullmatch(shape.attrib["d"]):
        # A line without length, with round ends, is a dot.
        dots = "".join(f"M{use.get('x')} {use.get('y')}h0" for use in alike)
        look = f"fill:none;{style.replace('fill', 'stroke')};stroke-linecap:round;stroke-width:"
        return [ET.Element("path", {"d": dots, "style": look + _short(f"{2 * float(circle['radius'])}")})]
    if len(alike) == 1:
        place = f"translate({alike[0].get('x')} {alike[0].get('y')})"
        return [ET.Element("path", {"d": shape.attrib["d"], "style": style, "transform": place})]
    return alike
