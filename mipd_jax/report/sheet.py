"""A sheet of test images: what the student says beside the truth."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from input_pipeline import atomic
from input_pipeline.errors import InputError
from mipd_jax.report import drawing, style
from mipd_jax.report.card import draw_card
from mipd_jax.report.examples import Example, RoleExample, choose_examples

__all__ = ["Example", "RoleExample", "choose_examples", "example_sheet"]

SHEET_WIDTH = 1200  # pixels; a README shows it at about that width
MAX_BYTES = 600_000
MAX_COLUMNS = 3  # with more, a row of the legend has no room
MARGIN, GAP, TITLE, NOTE = 20, 16, 30, 22


def example_sheet(
  examples: Sequence[Example],
  out_png: str | os.PathLike[str],
  columns: int = 2,
  title: str = "",
  note: str = "",
) -> None:
  """Draws one card per example; writes a PNG of at most `MAX_BYTES`.

  Each card shows the image twice: with the true boxes, solid, and with the
  predicted ones, dashed. A role keeps its colour and number on both and in
  the legend.

  Args:
    examples: at least one.
    out_png: written whole or not at all; 1200 pixels wide.
    columns: cards side by side, 1 to 3.
    title: a line above the cards.
    note: a line below them, such as how the images were drawn.

  Raises:
    InputError: no examples, too many columns, or an example that cannot be
      drawn.
  """
  if not examples or not 1 <= columns <= MAX_COLUMNS:
    raise InputError(
      f"a sheet of {len(examples)} examples in {columns} columns",
      f"give at least one example and 1 to {MAX_COLUMNS} columns",
    )
  cards = [draw_card(example, card_width(columns)) for example in examples]
  write_cards(cards, out_png, columns, title, note)


def card_width(columns: int) -> int:
  """Of each of so many cards side by side, pixels."""
  return (SHEET_WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns


def write_cards(
  cards: Sequence[Image.Image],
  out_png: str | os.PathLike[str],
  columns: int,
  title: str = "",
  note: str = "",
) -> None:
  """Lays cards of `card_width` out on one sheet and writes it."""
  rows = [cards[i : i + columns] for i in range(0, len(cards), columns)]
  sheet = _lay_out(rows, title, note)
  with atomic.replacing(out_png) as temporary:
    _save_small(sheet, temporary)


def _lay_out(
  rows: Sequence[Sequence[Image.Image]], title: str, note: str
) -> Image.Image:
  """Rows of cards of one width, each row as high as its highest card."""
  heights = [max(card.height for card in row) for row in rows]
  top = MARGIN + (TITLE if title else 0)
  bottom = MARGIN + (NOTE if note else 0)
  total = top + sum(heights) + GAP * (len(rows) - 1) + bottom
  sheet = Image.new("RGB", (SHEET_WIDTH, total), style.PAPER)
  draw = ImageDraw.Draw(sheet)
  room = SHEET_WIDTH - 2 * MARGIN
  if title:
    place = (MARGIN, MARGIN + 6)
    drawing.text_line(draw, place, title, 18, bold=True, width=room)
  y = top
  for row, height in zip(rows, heights, strict=True):
    x = MARGIN
    for card in row:
      box = (x, y, x + card.width - 1, y + height - 1)
      draw.rounded_rectangle(box, 10, fill=style.CARD, outline=style.RULE)
      # Without its rim the card leaves the rounded outline alone.
      rim = (1, 10, card.width - 1, card.height - 10)
      sheet.paste(card.crop(rim), (x + 1, y + 10))
      x += card.width + GAP
    y += height + GAP
  if note:
    place = (MARGIN, total - MARGIN - 4)
    drawing.text_line(draw, place, note, 13, style.FAINT, width=room)
  return sheet


def _save_small(sheet: Image.Image, path: str | os.PathLike[str]) -> None:
  """Saves in full colour, or as the best palette picture within MAX_BYTES.

  Photographs rarely fit in full colour. Dithering keeps their gradients but
  costs bytes; the fewest colours are kept even if they do not fit.
  """
  sheet.save(path, optimize=True)
  dithers = (Image.Dither.FLOYDSTEINBERG, Image.Dither.NONE)
  tries = [(256, dithers[0]), *((n, dithers[1]) for n in (256, 128, 64))]
  for colours, dither in tries:
    if os.path.getsize(path) <= MAX_BYTES:
      return
    palette = _palette(sheet, colours)
    sheet.quantize(palette=palette, dither=dither).save(path, optimize=True)


def _palette(sheet: Image.Image, colours: int) -> Image.Image:
  """The sheet's main colours, and exactly those that carry a meaning."""
  own = np.array([ImageColor.getrgb(c) for c in style.MEANINGS], np.int16)
  found = sheet.quantize(colours - len(own)).getpalette() or []
  found = np.array(found, np.int16).reshape(-1, 3)[: colours - len(own)]
  # Pillow's search is coarse: a near double would take a colour's place.
  distance = np.abs(found[:, None] - own[None]).max(-1).min(-1)
  kept = np.concatenate([own, found[distance > 8]]).astype(np.uint8)
  palette = Image.new("P", (1, 1))
  palette.putpalette(kept.tobytes())
  return palette
