"""How every figure looks, and how it becomes an inline SVG with the same bytes each time."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html import escape
from itertools import product

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = ["EXTERNAL", "GROUPS", "INK", "INTERNAL", "MUTED", "line_styles", "new_figure", "svg"]

# Okabe & Ito's palette, told apart by colour-blind readers; line styles repeat the distinction.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#AA4499", "#56B4E9"
INK, MUTED = "#1d2733", "#6b7785"
INTERNAL, EXTERNAL = BLUE, VERMILION
GROUPS = {
    2: ((BLUE, "-"), (VERMILION, "--")),
    3: ((BLUE, "-"), (ORANGE, "-."), (VERMILION, "--")),
    4: ((BLUE, "-"), (SKY, ":"), (ORANGE, "-."), (VERMILION, "--")),
    5: ((BLUE, "-"), (SKY, ":"), (GREEN, "-"), (ORANGE, "-."), (VERMILION, "--")),
}
SETTINGS = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and small
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def line_styles(count: int) -> list[tuple[str, str]]:
    """Return ``count`` pairs of colour and dash that can be told apart."""
    colours = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
    pairs = [(colour, dash) for dash, colour in product(("-", "--", "-.", ":"), colours)]
    return [pairs[index % len(pairs)] for index in range(count)]


@contextmanager
def new_figure(width_in: float, height_in: float, *, gap: float = 0.02) -> Iterator[Figure]:
    """Give a figure in the report's style; draw and call `svg` inside the block.

    ``gap`` is the space between panels as a share of a panel.
    """
    with mpl.rc_context(SETTINGS):
        yield Figure(figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(wspace=gap))


def _lay_out(figure: Figure) -> None:
    """Place the panels once: ``savefig`` draws a figure that has a layout twice."""
    layout = figure.get_layout_engine()
    if layout is not None and figure.axes:
        # As where matplotlib does it: what cannot be laid out is drawn as it is.
        with suppress(ValueError):
            layout.execute(figure)
        figure.set_layout_engine("none")


def svg(figure: Figure, name: str, description: str) -> Markup:
    """Return the figure as an ``<svg>`` element without links, dates or fixed size.

    Parameters
    ----------
    name : str
        Unique within the page: it salts the ids, so that two figures do not share one.
    description : str
        What a reader who cannot see it should know.
    """
    buffer, canvas = io.StringIO(), FigureCanvasSVG(figure)
    _lay_out(figure)
    figure.set_dpi(144)
    with mpl.rc_context({"svg.hashsalt": name}):
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Inside HTML the namespaces are implied, and an address of any kind would alarm a mail filter.
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    width_px = figure.get_figwidth() * 96
    opening = (
        f'<svg role="img" aria-label="{escape(description)}" style="max-width:{width_px:.0f}px"'
    )
    text = re.sub(r'\s(width|height)="[\d.]+pt"', "", text, count=2)
    # Every figure numbers its groups from 1, and an id must be unique within the page: only those
    # that something refers to are kept, and these are salted.
    used = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r'\sid="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    return Markup(text.replace("<svg", opening, 1))  # noqa: S704 - drawn here, text escaped
