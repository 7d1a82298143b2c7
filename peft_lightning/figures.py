"""How figures look: colours that the colour-blind can tell apart, markers beside them, and fonts that print."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure

# Okabe and Ito 2008, https://jfly.uni-koeln.de/color; without yellow, which is too light for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")


def line_style(number: int) -> dict[str, str]:
    """Colour and marker of the line of that number; no two of the first 77 share both."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure as PNG and PDF.

    Args:
        figure: What to write.
        stem: The files without their suffix; what is there is replaced.

    Returns:
        The two files. Fonts in the PDF are of type 42 (TrueType), as printers and journals want them; no date is in it,
        so that the same figure gives the same file.
    """
    png, pdf = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf"))
    figure.savefig(png, dpi=150)
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(pdf, metadata={"CreationDate": None})
    return [png, pdf]
