"""Colours and fonts that every picture shares.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), which
people with the common kinds of colour blindness can distinguish; shapes, marks
and numbers repeat the meaning of the colours.
"""

import functools
import pathlib

import matplotlib
from PIL import ImageFont

GROUP_COLOURS = {
  "seen": "#0072B2",
  "rare": "#E69F00",
  "unseen": "#CC79A7",
  "all": "#444444",
}
GROUP_MARKERS = {"seen": "o", "rare": "s", "unseen": "^"}
ROLE_COLOURS = (
  "#E69F00",
  "#56B4E9",
  "#00B587",
  "#F0E442",
  "#FF6F3C",
  "#D98BB9",
)
SERIES_COLOURS = (
  "#0072B2",
  "#D55E00",
  "#009E73",
  "#CC79A7",
  "#E69F00",
  "#56B4E9",
  "#8C6D31",
  "#7A7A7A",
)

RIGHT, WRONG = "#00795A", "#B83A0B"
INK, FAINT, RULE, PAPER, CARD = (
  "#1F2328",
  "#656D76",
  "#D0D7DE",
  "#F3F5F7",
  "#FFFFFF",
)

# The names of these colours on web pages, and their values on a dark
# background; text has a contrast of at least 4.5.
LIGHT = {
  "ink": INK,
  "faint": FAINT,
  "rule": RULE,
  "paper": PAPER,
  "card": CARD,
  "right": RIGHT,
  "wrong": WRONG,
  **GROUP_COLOURS,
}
DARK = {
  "ink": "#E6EAEE",
  "faint": "#9BA5AF",
  "rule": "#3A424B",
  "paper": "#14181C",
  "card": "#1D2329",
  "right": "#4FD0A5",
  "wrong": "#FF9166",
  "seen": "#56B4E9",
  "rare": "#E69F00",
  "unseen": "#E3A0C6",
  "all": "#C3CAD1",
}

# Colours that a picture with a small palette has to keep exactly.
MEANINGS = (
  *GROUP_COLOURS.values(),
  *ROLE_COLOURS,
  *(RIGHT, WRONG, INK, FAINT, RULE, PAPER, CARD, "#000000"),
)


def role_colour(position: int) -> str:
  """The colour of a role, by its place in the frame."""
  return ROLE_COLOURS[position % len(ROLE_COLOURS)]


@functools.lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
  """DejaVu Sans from matplotlib: no system font is used."""
  name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
  folder = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf"
  return ImageFont.truetype(str(folder / name), size)
