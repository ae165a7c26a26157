"""A sheet of test images with pairs: both boxes, the line between, the name."""

import dataclasses
import os
from collections.abc import Sequence

from PIL import Image, ImageDraw

from mipd_jax.report import drawing, sheet, style

_SIDE, _PAD, _ROW, _BAND = 340, 10, 27, 26
_SHOWN = 4  # pairs of a picture: more hide it


@dataclasses.dataclass(frozen=True)
class ShownPair:
  """A pair and what it is said to be.

  Attributes:
    person, object_: corners in pixels of the image.
    text: the interactions, such as "ride bicycle".
    group: "seen", "rare" or "unseen".
    score: 0 to 1; None for an annotated pair.
    is_right: whether an annotated pair is there; None for an annotated one.
  """

  person: drawing.Box
  object_: drawing.Box
  text: str
  group: str
  score: float | None = None
  is_right: bool | None = None


@dataclasses.dataclass(frozen=True)
class PairExample:
  """One image: the annotated pairs and the best predicted ones."""

  image: Image.Image
  name: str
  true: Sequence[ShownPair]
  predicted: Sequence[ShownPair]


def pair_sheet(
  examples: Sequence[PairExample],
  out_png: str | os.PathLike[str],
  columns: int = 3,
  title: str = "",
  note: str = "",
) -> None:
  """Draws a card per example: annotated pairs, then predicted ones.

  Args:
    examples: at least one.
    out_png: written whole or not at all.
    columns: cards side by side.
    title: a line above the cards.
    note: a line below them.
  """
  width = sheet.card_width(columns)
  cards = [_card(example, width) for example in examples]
  sheet.write_cards(cards, out_png, columns, title, note)


def _card(example: PairExample, width: int) -> Image.Image:
  true, predicted = example.true[:_SHOWN], example.predicted[:_SHOWN]
  rows = len(true) + len(predicted)
  inner = width - 2 * _PAD
  fitted, scale = drawing.fit_image(
    example.image, min(_SIDE, inner // 2 - _PAD // 2)
  )
  height = _PAD + _BAND + fitted.height + 2 * _BAND + rows * _ROW + _PAD
  card = Image.new("RGB", (width, height), style.CARD)
  draw = ImageDraw.Draw(card)
  drawing.text_line(
    draw, (_PAD, _PAD + 8), example.name, 13, style.FAINT, width=inner
  )
  top = _PAD + _BAND
  y = top + fitted.height + _BAND // 2
  for place, (heading, pairs) in enumerate(
    (("annotated", true), ("predicted", predicted))
  ):
    origin = (_PAD + place * (inner // 2 + _PAD // 2), top)
    card.paste(fitted, origin)
    for number, pair in enumerate(pairs):
      _draw_pair(draw, pair, number, scale, origin, fitted.size)
    drawing.text_line(draw, (_PAD, y), heading, 12, style.FAINT, bold=True)
    y += _BAND - 6
    for number, pair in enumerate(pairs):
      _line(draw, pair, number, y, inner)
      y += _ROW
  return card


def _colour(number: int) -> str:
  return style.ROLE_COLOURS[number % len(style.ROLE_COLOURS)]


def _draw_pair(draw, pair, number, scale, origin, size) -> None:
  """Both boxes (the object's dashed) and the line between their centres."""
  placed = [
    drawing.place_box(box, scale, origin, size)
    for box in (pair.person, pair.object_)
  ]
  ends = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in placed]
  colour = _colour(number)
  draw.line(ends, fill="#000000", width=drawing.LINE + 2)
  draw.line(ends, fill=colour, width=drawing.LINE)
  for corners, dashed in zip(placed, (False, True), strict=True):
    drawing.draw_box(draw, corners, colour, dashed)
  drawing.draw_badge(
    draw, (placed[0][0], placed[0][1]), str(number + 1), colour
  )


def _line(draw, pair, number, y, width) -> None:
  drawing.draw_badge(draw, (_PAD, y - 9), str(number + 1), _colour(number))
  text, ink = pair.text, style.INK
  if pair.is_right is not None:
    mark = "\N{CHECK MARK}" if pair.is_right else "\N{BALLOT X}"
    text = f"{mark} {text} {pair.score:.2f}"
    ink = style.RIGHT if pair.is_right else style.WRONG
  drawing.text_line(draw, (_PAD + 24, y), text, 13, ink, width=width - 110)
  drawing.draw_pill(
    draw, _PAD + width, y, pair.group, style.GROUP_COLOURS[pair.group]
  )
