"""Draws boxes, badges, text and annotated images with Pillow."""

import dataclasses
from collections.abc import Sequence

from PIL import Image, ImageDraw

from mipd_jax.report import style

Box = tuple[float, float, float, float]  # x1, y1, x2, y2
LINE = 3  # width of a box's line, pixels of the sheet
DASHES = (9, 6)  # drawn and left out, pixels of the sheet
BADGE = 18  # side of the numbered square that names a role
# Longer side of the drawn picture: small images are enlarged so that labels are
# readable, large ones reduced to the size of a screen.
SMALLEST, LARGEST = 720, 1280
_NARROWEST = 560  # least width of a drawing, for its legend
_MARGIN = 14
_PAD = 4  # around a label's text
Rect = tuple[int, int, int, int]


def fit_image(image: Image.Image, side: int) -> tuple[Image.Image, float]:
  """Scales an image so that its longer side is `side`.

  Returns:
    The RGB image and the pixels drawn per original pixel.
  """
  scale = side / max(image.size)
  width, height = (max(1, round(length * scale)) for length in image.size)
  # Smooth in both directions: nearest turns antialiased edges into stairs.
  resized = image.convert("RGB").resize(
    (width, height), Image.Resampling.LANCZOS
  )
  return resized, scale


def place_box(
  box: Box, scale: float, origin: tuple[float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
  """Original pixels -> pixels of the sheet, clipped to the picture.

  Args:
    box: corners in original pixels.
    scale: sheet pixels per original pixel.
    origin: the picture's top left corner on the sheet.
    size: width and height of the picture on the sheet.
  """
  placed = []
  for position, value in enumerate(box):
    axis = position % 2
    inside = min(max(value * scale, 0), size[axis] - 1)
    placed.append(round(origin[axis] + inside))
  return tuple(placed)


def draw_box(
  draw: ImageDraw.ImageDraw,
  corners: tuple[int, int, int, int],
  colour: str,
  dashed: bool = False,
) -> None:
  """Draws an outline whose outer edge is the box, on a dark casing.

  The casing keeps light colours readable on light images and dark ones on dark
  images.
  """
  x1, y1, x2, y2 = corners
  grown = (x1 - 1, y1 - 1, x2 + 1, y2 + 1)
  if not dashed:
    draw.rectangle(grown, outline="#000000", width=LINE + 2)
    draw.rectangle(corners, outline=colour, width=LINE)
    return
  inner = LINE - 1
  dashes = []
  for start, end in _dash_spans(x1, x2):
    dashes += [(start, y1, end, y1 + inner), (start, y2 - inner, end, y2)]
  for start, end in _dash_spans(y1, y2):
    dashes += [(x1, start, x1 + inner, end), (x2 - inner, start, x2, end)]
  for left, top, right, bottom in dashes:
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill="#000000")
  # After all casings, or a thin box's casing would cover its other side.
  for dash in dashes:
    draw.rectangle(dash, fill=colour)


def _dash_spans(start: int, end: int) -> list[tuple[int, int]]:
  """Dashes from corner to corner; both ends are always drawn."""
  drawn, gap = DASHES
  count = max(1, round((end - start + gap) / (drawn + gap)))
  pitch = (end - start + gap) / count
  return [
    (round(start + i * pitch), round(start + (i + 1) * pitch - gap))
    for i in range(count)
  ]


def badge_places(
  boxes: Sequence[tuple[int, int, int, int]],
  picture: tuple[int, int, int, int],
) -> list[tuple[int, int]]:
  """A corner of each box for its badge, so that badges do not overlap.

  Args:
    boxes: corners on the sheet.
    picture: corners of the picture on the sheet, which holds all badges.

  Returns:
    The top left corner of each badge.
  """
  taken: list[tuple[int, int]] = []
  for box in boxes:
    x1, y1, x2, y2 = box
    right, bottom = x2 + 1 - BADGE, y2 + 1 - BADGE
    wishes = [(x1, y1), (right, y1), (x1, bottom), (right, bottom)]
    wishes += [(x1 + i * BADGE, y1) for i in range(1, 7)]
    wishes = [
      (
        min(max(x, picture[0]), picture[2] - BADGE),
        min(max(y, picture[1]), picture[3] - BADGE),
      )
      for x, y in wishes
    ]
    free = [wish for wish in wishes if not any(_touch(wish, t) for t in taken)]
    taken.append((free or wishes)[0])
  return taken


def _touch(a: tuple[int, int], b: tuple[int, int]) -> bool:
  return abs(a[0] - b[0]) < BADGE and abs(a[1] - b[1]) < BADGE


def draw_badge(
  draw: ImageDraw.ImageDraw, place: tuple[int, int], position: int
) -> None:
  """A square of a role's colour with its number, `position` + 1."""
  x, y = place
  draw.rectangle(
    (x, y, x + BADGE - 1, y + BADGE - 1),
    fill=style.role_colour(position),
    outline="#000000",
  )
  draw.text(
    (x + BADGE / 2, y + BADGE / 2),
    str(position + 1),
    fill="#000000",
    font=style.font(12, bold=True),
    anchor="mm",
  )


def draw_pill(
  draw: ImageDraw.ImageDraw, right: int, middle: int, text: str, colour: str
) -> int:
  """Text on a rounded ground that ends at `right`; returns its left edge."""
  font = style.font(13, bold=True)
  width = round(font.getlength(text)) + 18
  draw.rounded_rectangle(
    (right - width, middle - 12, right, middle + 12), radius=12, fill=colour
  )
  ink = style.CARD if _luminance(colour) < 0.25 else style.INK
  draw.text((right - width / 2, middle), text, fill=ink, font=font, anchor="mm")
  return right - width


def _luminance(colour: str) -> float:
  red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
  return 0.21 * red**2.2 + 0.72 * green**2.2 + 0.07 * blue**2.2


def shorten(text: str, width: float, size: int, bold: bool = False) -> str:
  """The text, cut with an ellipsis to fit `width` pixels."""
  font = style.font(size, bold)
  text = " ".join(text.split())
  if font.getlength(text) <= width:
    return text
  while text and font.getlength(text + "…") > width:
    text = text[:-1]
  return text.rstrip(" ,;") + "…"


def text_line(
  draw: ImageDraw.ImageDraw,
  place: tuple[float, float],
  text: str,
  size: int,
  colour: str = style.INK,
  bold: bool = False,
  width: float | None = None,
  anchor: str = "lm",
) -> float:
  """Draws one line, shortened to `width`; returns its length in pixels."""
  if width is not None:
    text = shorten(text, width, size, bold)
  font = style.font(size, bold)
  draw.text(place, text, fill=colour, font=font, anchor=anchor)
  return font.getlength(text)


@dataclasses.dataclass(frozen=True)
class Role:
  """One role: `noun` is "" for nothing, `box` is in original pixels."""

  role: str
  noun: str
  probability: float
  box: Box | None


@dataclasses.dataclass(frozen=True)
class Annotated:
  """An image to draw with its prediction.

  Attributes:
    image: RGB, upright; may be smaller than the original.
    width, height: of the original, to which boxes refer.
    verb: the verb of the roles.
    probability: of that verb, None if it was given.
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
  """An RGB drawing; its first `picture_height` rows are the picture."""

  image: Image.Image
  picture_height: int


def draw_annotated(item: Annotated) -> Drawing:
  """The picture with a labelled box per role, and the legend below it.

  A role keeps its colour and number in both. The picture's longer side has
  `SMALLEST` to `LARGEST` pixels.
  """
  side = min(max(*item.image.size, SMALLEST), LARGEST)
  picture, _ = fit_image(item.image, side)
  width = max(picture.width, _NARROWEST)
  size = min(max(width // 45, 16), 26)
  legend = _legend(item, width, size)
  whole = Image.new("RGB", (width, picture.height + legend.height), style.PAPER)
  left = (width - picture.width) // 2
  whole.paste(picture, (left, 0))
  _draw_boxes(whole, item, (left, 0, *picture.size), size)
  whole.paste(legend, (0, picture.height))
  return Drawing(whole, picture.height)


def _draw_boxes(
  whole: Image.Image, item: Annotated, place: Rect, size: int
) -> None:
  """`place`: left, top, width, height of the picture."""
  left, top, width, height = place
  pen = ImageDraw.Draw(whole)
  # A scale per axis: a thin strip is at least one pixel high.
  factors = (width / item.width, height / item.height) * 2
  shown = [
    (i, _placed(role.box, factors, place))
    for i, role in enumerate(item.roles)
    if role.box is not None
  ]
  # Larger boxes first, so that they hide no smaller ones.
  for i, box in sorted(shown, key=lambda entry: -_area(entry[1])):
    draw_box(pen, box, style.role_colour(i))
  taken: list[Rect] = []
  bounds = (left, top, left + width, top + height)
  for i, box in shown:
    text = f"{i + 1} {item.roles[i].noun or 'nothing'}"
    for words in (shorten(text, width - 2 * _PAD, size), str(i + 1)):
      if rect := _label_place(words, size, box, bounds, taken):
        taken.append(rect)
        _draw_label(pen, rect, words, size, style.role_colour(i))
        break


def _placed(box: Box, factors: Sequence[float], place: Rect) -> Rect:
  left, top, width, height = place
  scaled = tuple(v * f for v, f in zip(box, factors, strict=True))
  return place_box(scaled, 1.0, (left, top), (width, height))


def _area(box: Rect) -> int:
  return (box[2] - box[0]) * (box[3] - box[1])


def _label_place(
  text: str, size: int, box: Rect, bounds: Rect, taken: Sequence[Rect]
) -> Rect | None:
  """At a corner of the box, inside the picture, on no other label.

  Returns:
    None if the picture is too small for it, or full.
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
  text_line(pen, place, text, size, "#000000", bold=True)


def _legend(item: Annotated, width: int, size: int) -> Image.Image:
  """The sentence, the verb, and a line per role."""
  room = width - 2 * _MARGIN
  line = round(size * 1.6)
  said = item.sentence[:1].upper() + item.sentence[1:] + "."
  lines = wrap(said, room, size, bold=True)
  count = len(lines) + 1 + len(item.roles)
  legend = Image.new("RGB", (width, count * line + 2 * _MARGIN), style.CARD)
  pen = ImageDraw.Draw(legend)
  y = _MARGIN + line / 2
  for text in lines:
    text_line(pen, (_MARGIN, y), text, size, bold=True, width=room)
    y += line
  share = "" if item.probability is None else f"  {item.probability:.0%}"
  text_line(pen, (_MARGIN, y), item.verb + share, size, style.FAINT, width=room)
  for i, role in enumerate(item.roles):
    y += line
    rect = (_MARGIN, y - size * 0.65, _MARGIN + size * 1.3, y + size * 0.65)
    pen.rectangle(rect, fill=style.role_colour(i), outline="#000000")
    middle = (_MARGIN + size * 0.65, y)
    text_line(
      pen,
      middle,
      str(i + 1),
      round(size * 0.8),
      "#000000",
      bold=True,
      anchor="mm",
    )
    noun = role.noun or "nothing"
    text = f"{role.role}: {noun}  {role.probability:.0%}"
    text += "" if role.box else "  (no box)"
    start = _MARGIN + size * 1.8
    text_line(pen, (start, y), text, size, width=width - start - _MARGIN)
  return legend


def wrap(text: str, width: float, size: int, bold: bool = False) -> list[str]:
  """Breaks words into lines of at most `width` pixels, if they fit."""
  font = style.font(size, bold)
  lines: list[str] = []
  for word in text.split():
    longer = f"{lines[-1]} {word}" if lines else word
    if lines and font.getlength(longer) <= width:
      lines[-1] = longer
    else:
      lines.append(word)
  return lines
