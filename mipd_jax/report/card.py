"""One card of the sheet: a header, two pictures, a legend of the roles."""

import numpy as np
from PIL import Image, ImageDraw

from input_pipeline.errors import InputError
from mipd_jax.report import drawing, style
from mipd_jax.report.drawing import text_line
from mipd_jax.report.examples import Example, RoleExample

GAP, PAD, ROW = 16, 14, 24
HEADER, CAPTION = 62, 22
RIGHT_MARK, WRONG_MARK = "✓", "✗"


def draw_card(example: Example, width: int) -> Image.Image:
  """Header, the image with true and with predicted boxes, legend of roles."""
  image = _checked_image(example)
  side = (width - 2 * PAD - GAP) // 2
  picture, scale = drawing.fit_image(image, side)
  height = HEADER + picture.height + CAPTION + ROW * len(example.roles) + PAD
  card = Image.new("RGB", (width, height), style.CARD)
  draw = ImageDraw.Draw(card)
  _draw_header(draw, example, width)
  for column, predicted in enumerate((False, True)):
    # Narrow pictures stand in the middle of their half.
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


def _draw_header(draw: ImageDraw.ImageDraw, example: Example, width: int):
  right = example.predicted_verb == example.true_verb
  colour = style.RIGHT if right else style.WRONG
  group_colour = style.GROUP_COLOURS.get(example.group, style.FAINT)
  edge = drawing.draw_pill(draw, width - PAD, 22, example.group, group_colour)
  verb = f"{RIGHT_MARK if right else WRONG_MARK} {example.predicted_verb}"
  chance = ""
  if example.probability is not None:
    chance = f"{100 * example.probability:.0f} %"
  room = edge - PAD - 16 - style.font(14).getlength(chance)
  drawn = text_line(draw, (PAD, 22), verb, 18, colour, bold=True, width=room)
  text_line(draw, (PAD + drawn + 8, 23), chance, 14, style.FAINT)
  name = drawing.shorten(example.name, width * 0.35, 12)
  text_line(draw, (width - PAD, 46), name, 12, style.FAINT, anchor="rm")
  room = width - 2 * PAD - style.font(12).getlength(name) - 12
  truth = f"truth: {example.true_verb}"
  text_line(draw, (PAD, 46), truth, 14, style.INK, width=room)


def _draw_boxes(
  draw: ImageDraw.ImageDraw,
  example: Example,
  origin: tuple[int, int],
  size: tuple[int, int],
  scale: float,
  predicted: bool,
) -> None:
  placed = {}
  for position, role in enumerate(example.roles):
    box = role.predicted_box if predicted else role.true_box
    if box is not None:
      placed[position] = drawing.place_box(box, scale, origin, size)
  for position, corners in placed.items():
    drawing.draw_box(draw, corners, _colour(position), dashed=predicted)
  picture = (*origin, origin[0] + size[0], origin[1] + size[1])
  places = drawing.badge_places(list(placed.values()), picture)
  for position, place in zip(placed, places, strict=True):
    drawing.draw_badge(draw, place, str(position + 1), _colour(position))


def _draw_legend(
  draw: ImageDraw.ImageDraw,
  role: RoleExample,
  position: int,
  y: int,
  width: int,
) -> None:
  """One row: number, role, true nouns | predicted noun, verdict on the box."""
  place = (PAD, y - drawing.BADGE // 2)
  drawing.draw_badge(draw, place, str(position + 1), _colour(position))
  half = width // 2 + GAP // 2
  start = PAD + drawing.BADGE + 8
  room = half - start - 10
  drawn = text_line(
    draw, (start, y), role.role, 13, bold=True, width=room * 0.45
  )
  truth = " / ".join(dict.fromkeys(n or "blank" for n in role.true_nouns))
  start += drawn + 8
  text_line(draw, (start, y), truth or "blank", 13, width=half - start - 10)
  right, verdict = role.box_verdict
  colour = style.RIGHT if right else style.WRONG
  verdict = f"{RIGHT_MARK if right else WRONG_MARK} {verdict}"
  text_line(draw, (width - PAD, y), verdict, 12, colour, anchor="rm")
  room = width - PAD - half - style.font(12).getlength(verdict) - 10
  colour = style.RIGHT if role.noun_right else style.WRONG
  mark = RIGHT_MARK if role.noun_right else WRONG_MARK
  words = f"{mark} {role.predicted_noun or 'blank'}"
  text_line(draw, (half, y), words, 13, colour, width=room)


def _colour(position: int) -> str:
  return style.ROLE_COLOURS[position % len(style.ROLE_COLOURS)]


def _checked_image(example: Example) -> Image.Image:
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
