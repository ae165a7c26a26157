"""Boxes, badges and lines of text, drawn with Pillow."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from mipd_jax.report import style

Box = tuple[float, float, float, float]  # x1, y1, x2, y2
LINE = 3  # width of a box's line, pixels of the sheet
DASHES = (9, 6)  # drawn and left out, pixels of the sheet
BADGE = 18  # side of the numbered square that names a role


def fit_image(image: Image.Image, side: int) -> tuple[Image.Image, float]:
  """Scales an image so that its longer side is `side`.

  Returns:
    The RGB image and the pixels drawn per original pixel.
  """
  scale = side / max(image.size)
  width, height = (max(1, round(length * scale)) for length in image.size)
  # Smooth both ways: nearest turns antialiased edges into stairs.
  resized = image.convert("RGB").resize(
    (width, height), Image.Resampling.LANCZOS
  )
  return resized, scale


def place_box(
  box: Box, scale: float, origin: tuple[float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
  """Original pixels -> pixels of the sheet, kept inside the picture.

  Args:
    box: corners in original pixels.
    scale: sheet pixels per original pixel.
    origin: where the picture's top left corner lies on the sheet.
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

  The casing keeps light colours readable on light images and the other way
  round.
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
  # After all casings, or in a thin box one side's would cover another side.
  for dash in dashes:
    draw.rectangle(dash, fill=colour)


def _dash_spans(start: int, end: int) -> list[tuple[int, int]]:
  """Dashes from corner to corner: both ends are always drawn."""
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
  draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: str
) -> None:
  """A square of the role's colour with the role's number."""
  x, y = place
  draw.rectangle(
    (x, y, x + BADGE - 1, y + BADGE - 1), fill=colour, outline="#000000"
  )
  draw.text(
    (x + BADGE / 2, y + BADGE / 2),
    text,
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
  """The text, or as much of it as fits `width` pixels with an ellipsis."""
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
