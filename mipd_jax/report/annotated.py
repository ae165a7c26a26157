"""One image with what was predicted: boxes, a legend, a sentence."""

import dataclasses
from collections.abc import Sequence

from PIL import Image, ImageDraw

from mipd_jax.report import drawing, style
from mipd_jax.report.drawing import Box

# Longer side of the drawn picture: small images are enlarged until labels
# can be read, large ones reduced to what a screen shows.
SMALLEST, LARGEST = 720, 1280
_NARROWEST = 560  # of the whole drawing; a legend needs that much
_MARGIN = 14
_PAD = 4  # around a label's text
Rect = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Role:
  """One role: `noun` is "" for nothing, `box` is in original pixels."""

  role: str
  noun: str
  probability: float
  box: Box | None


@dataclasses.dataclass(frozen=True)
class Annotated:
  """What is drawn.

  Attributes:
    image: RGB, upright; perhaps smaller than the original.
    width, height: of the original, to which boxes refer.
    verb: whose roles these are.
    probability: of that verb, None where it was given.
    roles: in the frame's order.
    sentence: written below the picture.
  """

  image: Image.Image
  width: int
  height: int
  verb: str
  probability: float | None
  roles: Sequence[Role]
  sentence: str


@dataclasses.dataclass(frozen=True)
class Drawing:
  """An RGB drawing, whose first `picture_height` rows are the picture."""

  image: Image.Image
  picture_height: int


def draw(item: Annotated) -> Drawing:
  """The picture with a labelled box a role, and the legend below it.

  A role keeps its colour and number in both. The picture's longer side has
  `SMALLEST` to `LARGEST` pixels.
  """
  side = min(max(*item.image.size, SMALLEST), LARGEST)
  picture, _ = drawing.fit_image(item.image, side)
  width = max(picture.width, _NARROWEST)
  size = min(max(width // 45, 16), 26)
  legend = _legend(item, width, size)
  whole = Image.new("RGB", (width, picture.height + legend.height), style.PAPER)
  left = (width - picture.width) // 2
  whole.paste(picture, (left, 0))
  _draw_boxes(whole, item, (left, 0, *picture.size), size)
  whole.paste(legend, (0, picture.height))
  return Drawing(whole, picture.height)


def colour(position: int) -> str:
  """Of a role, by its place in the frame."""
  return style.ROLE_COLOURS[position % len(style.ROLE_COLOURS)]


def _draw_boxes(
  whole: Image.Image, item: Annotated, place: Rect, size: int
) -> None:
  """`place`: left, top, width, height of the picture."""
  left, top, width, height = place
  pen = ImageDraw.Draw(whole)
  # Not one scale for both axes: a thin strip is at least a pixel high.
  factors = (width / item.width, height / item.height) * 2
  shown = [
    (i, _placed(role.box, factors, place))
    for i, role in enumerate(item.roles)
    if role.box is not None
  ]
  # Larger boxes first, so that none hides behind a larger one.
  for i, box in sorted(shown, key=lambda entry: -_area(entry[1])):
    drawing.draw_box(pen, box, colour(i))
  taken: list[Rect] = []
  bounds = (left, top, left + width, top + height)
  for i, box in shown:
    text = f"{i + 1} {item.roles[i].noun or 'nothing'}"
    for words in (drawing.shorten(text, width - 2 * _PAD, size), str(i + 1)):
      if rect := _label_place(words, size, box, bounds, taken):
        taken.append(rect)
        _draw_label(pen, rect, words, size, colour(i))
        break


def _placed(box: Box, factors: Sequence[float], place: Rect) -> Rect:
  left, top, width, height = place
  scaled = tuple(v * f for v, f in zip(box, factors, strict=True))
  return drawing.place_box(scaled, 1.0, (left, top), (width, height))


def _area(box: Rect) -> int:
  return (box[2] - box[0]) * (box[3] - box[1])


def _label_place(
  text: str, size: int, box: Rect, bounds: Rect, taken: Sequence[Rect]
) -> Rect | None:
  """At a corner of the box, inside the picture, on no other label.

  Returns:
    None where the picture is too small for it, or full.
  """
  font = style.font(size, bold=True)
  width = round(font.getlength(text)) + 2 * _PAD
  height = size + 2 * _PAD
  if width > bounds[2] - bounds[0] or height > bounds[3] - bounds[1]:
    return None
  x1, y1, x2, y2 = box
  columns = (x1, x2 - width)
  rows = (y1 - height, y1, y2 - height, y2)
  corners = [(x, y) for y in rows for x in columns]
  steps = range(1, 1 + (bounds[3] - bounds[1]) // height)
  corners += [(x1, y1 + step * height) for step in steps]
  corners += [(x1, y1 - step * height) for step in steps]
  for x, y in corners:
    x = min(max(x, bounds[0]), bounds[2] - width)
    y = min(max(y, bounds[1]), bounds[3] - height)
    rect = (x, y, x + width, y + height)
    if not any(_overlap(rect, other) for other in taken):
      return rect
  return None


def _overlap(a: Rect, b: Rect) -> bool:
  return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_label(pen, rect: Rect, text: str, size: int, fill: str) -> None:
  x1, y1, x2, y2 = rect
  pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=fill, outline="#000000")
  place = (x1 + _PAD, (y1 + y2) / 2)
  drawing.text_line(pen, place, text, size, "#000000", bold=True)


def _legend(item: Annotated, width: int, size: int) -> Image.Image:
  """The sentence, the verb, and a line a role."""
  room = width - 2 * _MARGIN
  line = round(size * 1.6)
  said = item.sentence[:1].upper() + item.sentence[1:] + "."
  lines = wrap(said, room, size, bold=True)
  count = len(lines) + 1 + len(item.roles)
  legend = Image.new("RGB", (width, count * line + 2 * _MARGIN), style.CARD)
  pen = ImageDraw.Draw(legend)
  y = _MARGIN + line / 2
  for text in lines:
    drawing.text_line(pen, (_MARGIN, y), text, size, bold=True, width=room)
    y += line
  share = "" if item.probability is None else f"  {item.probability:.0%}"
  drawing.text_line(
    *(pen, (_MARGIN, y), item.verb + share, size, style.FAINT), width=room
  )
  for i, role in enumerate(item.roles):
    y += line
    rect = (_MARGIN, y - size * 0.65, _MARGIN + size * 1.3, y + size * 0.65)
    pen.rectangle(rect, fill=colour(i), outline="#000000")
    middle = (_MARGIN + size * 0.65, y)
    drawing.text_line(
      *(pen, middle, str(i + 1), round(size * 0.8), "#000000"),
      bold=True,
      anchor="mm",
    )
    noun = role.noun or "nothing"
    text = f"{role.role}: {noun}  {role.probability:.0%}"
    text += "" if role.box else "  (no box)"
    start = _MARGIN + size * 1.8
    drawing.text_line(
      pen, (start, y), text, size, width=width - start - _MARGIN
    )
  return legend


def wrap(text: str, width: float, size: int, bold: bool = False) -> list[str]:
  """Words in lines of at most `width` pixels; a longer word has its own."""
  font = style.font(size, bold)
  lines: list[str] = []
  for word in text.split():
    longer = f"{lines[-1]} {word}" if lines else word
    if lines and font.getlength(longer) <= width:
      lines[-1] = longer
    else:
      lines.append(word)
  return lines
