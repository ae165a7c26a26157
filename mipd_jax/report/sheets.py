"""A sheet of test images, one card each: predictions beside the truth."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from input_pipeline.io import atomic
from input_pipeline.io.errors import InputError
from mipd_jax.report import drawing, style
from mipd_jax.report.drawing import text_line
from mipd_jax.report.examples import Example, RoleExample

# Lengths are in pixels.
SHEET_WIDTH = 1200  # about the width of a README
MAX_BYTES = 600_000  # of a sheet's file, if any palette allows it
MAX_COLUMNS = 3  # more leave no room for a row of the legend
# Of a sheet: its rim, between two cards, the heights of its title and its note.
MARGIN, GAP, TITLE, NOTE = 20, 16, 30, 22
# Of a card: its rim, a row of its legend, its head, the line below pictures.
PAD, ROW, HEADER, CAPTION = 14, 24, 62, 22
# Of a card's head: the middles of its two lines.
_VERB_LINE, _TRUTH_LINE = 22, 46
CORRECT_MARK, WRONG_MARK = "✓", "✗"
# Of a card with pairs: a picture's side, the rim, a row, a heading, from a
# heading to its first row, the part of a row that badge and pill need.
_PAIR_SIDE, _PAIR_PAD, _PAIR_ROW, _PAIR_BAND = 340, 10, 27, 26
_PAIR_STEP, _PAIR_ENDS = 20, 110
MAX_PAIRS = 3  # per picture: more hide it


@dataclasses.dataclass(frozen=True)
class ShownPair:
  """A pair and its interactions.

  Attributes:
    person, object_: corners in pixels of the image.
    text: the interactions, such as "ride bicycle".
    group: "seen", "rare" or "unseen".
    score: 0 to 1; None for an annotated pair.
    is_right: whether it matches an annotated pair; None for an annotated one.
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


def example_sheet(
  examples: Sequence[Example],
  out_png: str | os.PathLike[str],
  columns: int = 2,
  title: str = "",
  note: str = "",
) -> None:
  """Draws one card per example; writes a PNG.

  The file has at most `MAX_BYTES` if any palette allows it.

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
  cards = [draw_card(example, _card_width(columns)) for example in examples]
  _write_cards(cards, out_png, columns, title, note)


def pair_sheet(
  examples: Sequence[PairExample],
  out_png: str | os.PathLike[str],
  columns: int = 3,
  title: str = "",
  note: str = "",
) -> None:
  """Draws a card per example: annotated pairs, then predicted ones.

  Args:
    examples: any number; without any the sheet has no card. Of each, the
      first `MAX_PAIRS` pairs of both kinds are drawn.
    out_png: written whole or not at all.
    columns: cards side by side, at least one.
    title: a line above the cards.
    note: a line below them.
  """
  width = _card_width(columns)
  cards = [_pair_card(example, width) for example in examples]
  _write_cards(cards, out_png, columns, title, note)


def _card_width(columns: int) -> int:
  """Width of each of `columns` cards side by side, pixels."""
  return (SHEET_WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns


def _write_cards(
  cards: Sequence[Image.Image],
  out_png: str | os.PathLike[str],
  columns: int,
  title: str = "",
  note: str = "",
) -> None:
  """Lays cards of `_card_width` out on one sheet and writes it."""
  rows = [cards[i : i + columns] for i in range(0, len(cards), columns)]
  sheet = _lay_out(rows, title, note)
  with atomic.replacing(out_png) as temporary:
    _save_small(sheet, temporary)


def _lay_out(
  rows: Sequence[Sequence[Image.Image]], title: str, note: str
) -> Image.Image:
  """Rows of cards of one width; a row is as high as its highest card."""
  heights = [max(card.height for card in row) for row in rows]
  top = MARGIN + (TITLE if title else 0)
  bottom = MARGIN + (NOTE if note else 0)
  total = top + sum(heights) + GAP * (len(rows) - 1) + bottom
  sheet = Image.new("RGB", (SHEET_WIDTH, total), style.PAPER)
  draw = ImageDraw.Draw(sheet)
  room = SHEET_WIDTH - 2 * MARGIN
  if title:
    place = (MARGIN, MARGIN + 6)
    text_line(draw, place, title, 18, bold=True, width=room)
  y = top
  for row, height in zip(rows, heights, strict=True):
    x = MARGIN
    for card in row:
      box = (x, y, x + card.width - 1, y + height - 1)
      draw.rounded_rectangle(box, 10, fill=style.CARD, outline=style.RULE)
      # Only the inside is pasted, so that the rounded outline stays visible.
      inside = (1, 10, card.width - 1, card.height - 10)
      sheet.paste(card.crop(inside), (x + 1, y + 10))
      x += card.width + GAP
    y += height + GAP
  if note:
    place = (MARGIN, total - MARGIN - 4)
    text_line(draw, place, note, 13, style.FAINT, width=room)
  return sheet


def _save_small(sheet: Image.Image, path: str | os.PathLike[str]) -> None:
  """Saves in full colour, or as the best palette picture within MAX_BYTES.

  Photographs rarely fit in full colour. Dithering keeps their gradients but
  costs bytes; the smallest palette is used even if it does not fit.
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
  """The sheet's main colours, with the exact colours that have a meaning."""
  own = np.array([ImageColor.getrgb(c) for c in style.MEANINGS], np.int16)
  searched = sheet.quantize(colours - len(own)).getpalette() or []
  searched = np.array(searched, np.int16).reshape(-1, 3)[: colours - len(own)]
  # Pillow's search is coarse: a near duplicate would waste an entry.
  distance = np.abs(searched[:, None] - own[None]).max(-1).min(-1)
  kept = np.concatenate([own, searched[distance > 8]]).astype(np.uint8)
  palette = Image.new("P", (1, 1))
  palette.putpalette(kept.tobytes())
  return palette


def draw_card(example: Example, width: int) -> Image.Image:
  """Header, the image with true and with predicted boxes, legend of roles."""
  image = _checked(example)
  side = (width - 2 * PAD - GAP) // 2
  picture, scale = drawing.fit_image(image, side)
  height = HEADER + picture.height + CAPTION + ROW * len(example.roles) + PAD
  card = Image.new("RGB", (width, height), style.CARD)
  draw = ImageDraw.Draw(card)
  _draw_header(draw, example, width)
  for column, predicted in enumerate((False, True)):
    # Narrow pictures are centred in their half.
    x = PAD + column * (side + GAP) + (side - picture.width) // 2
    card.paste(picture, (x, HEADER))
    _draw_boxes(draw, example, (x, HEADER), picture.size, scale, predicted)
  y = HEADER + picture.height + CAPTION / 2
  for column, words in enumerate(("truth", "predicted")):
    middle = PAD + column * (side + GAP) + side / 2
    text_line(draw, (middle, y), words, 12, style.FAINT, anchor="mm")
  y += CAPTION / 2
  for position, role in enumerate(example.roles):
    _draw_legend(draw, role, position, round(y + ROW / 2), width)
    y += ROW
  return card


def _draw_header(
  draw: ImageDraw.ImageDraw, example: Example, width: int
) -> None:
  """Predicted verb, its probability, the group; below them truth and name."""
  correct = example.predicted_verb == example.true_verb
  colour = style.RIGHT if correct else style.WRONG
  group_colour = style.GROUP_COLOURS.get(example.group, style.FAINT)
  edge = drawing.draw_pill(
    draw, width - PAD, _VERB_LINE, example.group, group_colour
  )
  verb = f"{CORRECT_MARK if correct else WRONG_MARK} {example.predicted_verb}"
  chance = ""
  if example.probability is not None:
    chance = f"{100 * example.probability:.0f} %"
  room = edge - PAD - 16 - style.font(14).getlength(chance)
  drawn = text_line(
    draw, (PAD, _VERB_LINE), verb, 18, colour, bold=True, width=room
  )
  # Smaller letters, one pixel lower.
  place = (PAD + drawn + 8, _VERB_LINE + 1)
  text_line(draw, place, chance, 14, style.FAINT)
  name = drawing.shorten(example.name, width * 0.35, 12)
  place = (width - PAD, _TRUTH_LINE)
  text_line(draw, place, name, 12, style.FAINT, anchor="rm")
  room = width - 2 * PAD - style.font(12).getlength(name) - 12
  truth = f"truth: {example.true_verb}"
  text_line(draw, (PAD, _TRUTH_LINE), truth, 14, style.INK, width=room)


def _draw_boxes(
  draw: ImageDraw.ImageDraw,
  example: Example,
  origin: tuple[int, int],
  size: tuple[int, int],
  scale: float,
  predicted: bool,
) -> None:
  """Draws the true or the predicted boxes on one picture, with badges.

  Args:
    draw: of the card.
    example: its boxes are in original pixels.
    origin: the picture's top left corner, pixels of the card.
    size: width and height of the picture, pixels of the card.
    scale: pixels of the card per original pixel.
    predicted: whether to draw the predicted boxes, dashed.
  """
  placed = {}
  for position, role in enumerate(example.roles):
    box = role.predicted_box if predicted else role.true_box
    if box is not None:
      placed[position] = drawing.place_box(box, scale, origin, size)
  for position, corners in placed.items():
    drawing.draw_box(
      draw, corners, style.role_colour(position), dashed=predicted
    )
  picture = (*origin, origin[0] + size[0], origin[1] + size[1])
  places = drawing.badge_places(list(placed.values()), picture)
  for position, place in zip(placed, places, strict=True):
    drawing.draw_badge(draw, place, position)


def _draw_legend(
  draw: ImageDraw.ImageDraw,
  role: RoleExample,
  position: int,
  y: int,
  width: int,
) -> None:
  """One row: number, role, true nouns | predicted noun, verdict of the box."""
  place = (PAD, y - drawing.BADGE // 2)
  drawing.draw_badge(draw, place, position)
  half = width // 2 + GAP // 2
  start = PAD + drawing.BADGE + 8
  room = half - start - 10
  drawn = text_line(
    draw, (start, y), role.role, 13, bold=True, width=room * 0.45
  )
  truth = " / ".join(dict.fromkeys(n or "blank" for n in role.true_nouns))
  start += drawn + 8
  text_line(draw, (start, y), truth or "blank", 13, width=half - start - 10)
  correct, verdict = role.box_verdict
  colour = style.RIGHT if correct else style.WRONG
  verdict = f"{CORRECT_MARK if correct else WRONG_MARK} {verdict}"
  text_line(draw, (width - PAD, y), verdict, 12, colour, anchor="rm")
  room = width - PAD - half - style.font(12).getlength(verdict) - 10
  colour = style.RIGHT if role.noun_right else style.WRONG
  mark = CORRECT_MARK if role.noun_right else WRONG_MARK
  words = f"{mark} {role.predicted_noun or 'blank'}"
  text_line(draw, (half, y), words, 13, colour, width=room)


def _checked(example: Example) -> Image.Image:
  """The image, after a check of the example's boxes and its pixels."""
  for role in example.roles:
    for name in ("true_box", "predicted_box"):
      box = getattr(role, name)
      if box is not None and not (
        len(box) == 4
        and np.isfinite(box).all()
        and box[0] <= box[2]
        and box[1] <= box[3]
      ):
        raise InputError(
          f"{example.name}, role {role.role}: {name} is {box}",
          "give (x1, y1, x2, y2) in original pixels, or None",
        )
  if isinstance(example.image, Image.Image):
    return example.image
  array = np.asarray(example.image)
  grey_or_rgb = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
  if array.dtype != np.uint8 or not array.size or not grey_or_rgb:
    raise InputError(
      f"{example.name}: the image is {array.dtype}{list(array.shape)}",
      "give a PIL image or uint8 [H, W, 3]",
    )
  return Image.fromarray(array)


def _pair_card(example: PairExample, width: int) -> Image.Image:
  """The name, the image with both kinds of pairs, a row for each pair."""
  true, predicted = example.true[:MAX_PAIRS], example.predicted[:MAX_PAIRS]
  rows = len(true) + len(predicted)
  inner = width - 2 * _PAIR_PAD
  fitted, scale = drawing.fit_image(
    example.image, min(_PAIR_SIDE, inner // 2 - _PAIR_PAD // 2)
  )
  height = 2 * _PAIR_PAD + 3 * _PAIR_BAND + fitted.height + rows * _PAIR_ROW
  card = Image.new("RGB", (width, height), style.CARD)
  draw = ImageDraw.Draw(card)
  text_line(
    draw, (_PAIR_PAD, _PAIR_PAD + 8), example.name, 13, style.FAINT, width=inner
  )
  top = _PAIR_PAD + _PAIR_BAND
  y = top + fitted.height + _PAIR_BAND // 2
  for place, (heading, pairs) in enumerate(
    (("annotated", true), ("predicted", predicted))
  ):
    origin = (_PAIR_PAD + place * (inner // 2 + _PAIR_PAD // 2), top)
    card.paste(fitted, origin)
    for number, pair in enumerate(pairs):
      _draw_pair(draw, pair, number, scale, origin, fitted.size)
    text_line(draw, (_PAIR_PAD, y), heading, 12, style.FAINT, bold=True)
    y += _PAIR_STEP
    for number, pair in enumerate(pairs):
      _pair_line(draw, pair, number, y, inner)
      y += _PAIR_ROW
  return card


def _draw_pair(
  draw: ImageDraw.ImageDraw,
  pair: ShownPair,
  number: int,
  scale: float,
  origin: tuple[int, int],
  size: tuple[int, int],
) -> None:
  """Both boxes (the object's dashed) and the line between their centres.

  `number` chooses the colour; the others are those of `_draw_boxes`.
  """
  placed = [
    drawing.place_box(box, scale, origin, size)
    for box in (pair.person, pair.object_)
  ]
  ends = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in placed]
  colour = style.role_colour(number)
  draw.line(ends, fill="#000000", width=drawing.LINE + 2)
  draw.line(ends, fill=colour, width=drawing.LINE)
  for corners, dashed in zip(placed, (False, True), strict=True):
    drawing.draw_box(draw, corners, colour, dashed)
  drawing.draw_badge(draw, placed[0][:2], number)


def _pair_line(
  draw: ImageDraw.ImageDraw, pair: ShownPair, number: int, y: int, width: int
) -> None:
  """One row, its middle at `y`: badge, interactions with score, group."""
  drawing.draw_badge(draw, (_PAIR_PAD, y - 9), number)
  text, ink = pair.text, style.INK
  if pair.is_right is not None:
    mark = CORRECT_MARK if pair.is_right else WRONG_MARK
    text = f"{mark} {text} {pair.score:.2f}"
    ink = style.RIGHT if pair.is_right else style.WRONG
  room = width - _PAIR_ENDS
  text_line(draw, (_PAIR_PAD + 24, y), text, 13, ink, width=room)
  drawing.draw_pill(
    draw, _PAIR_PAD + width, y, pair.group, style.GROUP_COLOURS[pair.group]
  )
