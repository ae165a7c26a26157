"""The sprites that scenes are composed of, each drawn once."""

import functools
import math

from PIL import Image, ImageChops, ImageDraw

from input_pipeline.small_world import looks

_SIDE = 96  # pixels of a sprite
_FINE = 4  # drawn larger by this factor, then reduced, for smooth edges
_INK = (40, 34, 44)
_BACKGROUND_SIDE = 128


@functools.cache
def thing(shape: str, colour: str, texture: str) -> Image.Image:
  """A noun's sprite, RGBA; its shape touches the sprite's edges."""
  side = _SIDE * _FINE
  mask = Image.new("L", (side, side), 0)
  _draw_shape(ImageDraw.Draw(mask), shape, side)
  inner = _shrink(mask, 0.86)
  fill = Image.new("RGB", (side, side), looks.COLOURS[colour])
  _draw_texture(ImageDraw.Draw(fill), texture, looks.COLOURS[colour], side)
  picture = Image.new("RGB", (side, side), _INK)
  picture.paste(fill, (0, 0), inner)
  picture.putalpha(mask)
  width = 0.52 if shape == "tall" else 1.0
  height = 0.52 if shape == "flat" else 1.0
  low_x, low_y = (1 - width) / 2 * side, (1 - height) / 2 * side
  tight = picture.crop(
    (round(low_x), round(low_y), round(side - low_x), round(side - low_y))
  )
  return tight.resize(
    (round(_SIDE * width), round(_SIDE * height)), Image.Resampling.LANCZOS
  )


def _shrink(mask: Image.Image, scale: float) -> Image.Image:
  """The inside of a mask: the points away from its edge."""
  margin = round(mask.width * (1 - scale) / 4)
  inner = mask
  for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1)):
    moved = Image.new("L", mask.size, 0)
    moved.paste(mask, (dx * margin, dy * margin))
    inner = ImageChops.darker(inner, moved)
  return inner


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, n: int) -> None:
  if shape == "disc":
    draw.ellipse((0, 0, n, n), 255)
  elif shape == "square":
    draw.rounded_rectangle((0, 0, n, n), n * 0.06, 255)
  elif shape == "triangle":
    draw.polygon([(n / 2, 0), (n, n), (0, n)], 255)
  elif shape == "starry":
    draw.polygon(_star(n, 5, 0.45), 255)
  elif shape == "cross":
    draw.rectangle((n * 0.3, 0, n * 0.7, n), 255)
    draw.rectangle((0, n * 0.3, n, n * 0.7), 255)
  elif shape == "hoop":
    draw.ellipse((0, 0, n, n), 255)
    draw.ellipse((n * 0.3, n * 0.3, n * 0.7, n * 0.7), 0)
  elif shape == "flat":
    draw.rounded_rectangle((0, n * 0.24, n, n * 0.76), n * 0.1, 255)
  elif shape == "tall":
    draw.rounded_rectangle((n * 0.24, 0, n * 0.76, n), n * 0.1, 255)


def _star(n: float, points: int, depth: float) -> list[tuple[float, float]]:
  corners = []
  for k in range(2 * points):
    radius = 1.0 if k % 2 == 0 else depth
    angle = math.pi * k / points - math.pi / 2
    corners.append((radius * math.cos(angle), radius * math.sin(angle)))
  low = [min(c[axis] for c in corners) for axis in (0, 1)]
  high = [max(c[axis] for c in corners) for axis in (0, 1)]
  return [
    tuple(n * (c[a] - low[a]) / (high[a] - low[a]) for a in (0, 1))
    for c in corners
  ]


def _draw_texture(
  draw: ImageDraw.ImageDraw, texture: str, colour: tuple[int, ...], n: int
) -> None:
  dark = tuple(int(value * 0.45) for value in colour)
  if texture == "striped":
    for k in range(-3, 4):
      x = n * (0.5 + k * 0.34)
      draw.line((x - n / 2, n, x + n / 2, 0), dark, round(n * 0.11))
  elif texture == "dotted":
    for row in range(5):
      for column in range(5):
        x = n * (column + (0.5 if row % 2 else 0.0)) * 0.28
        y, radius = n * (row + 0.2) * 0.26, n * 0.065
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), dark)


@functools.cache
def mark(word: str) -> Image.Image:
  """The sprite of a motion mark, RGBA."""
  n = _SIDE * _FINE
  picture = Image.new("RGBA", (n, n), (0, 0, 0, 0))
  draw = ImageDraw.Draw(picture)
  wide, ink = round(n * 0.13), (*_INK, 255)
  if word == "streaks":
    for k in range(3):
      y = n * (0.2 + 0.3 * k)
      draw.line((0, y, n, y), ink, wide)
  elif word == "waves":
    for k in range(3):
      line = [
        (n * x / 24, n * (0.2 + 0.3 * k + 0.09 * math.sin(x * 0.8)))
        for x in range(25)
      ]
      draw.line(line, (30, 90, 255, 255), wide)
  elif word == "sparks":
    draw.polygon(_star(n, 8, 0.4), (255, 240, 90, 255), ink, round(n * 0.05))
  elif word == "drops":
    for x, y in ((0.25, 0.3), (0.75, 0.3), (0.5, 0.78)):
      _disc(draw, n * x, n * y, n * 0.2, (90, 230, 255, 255), ink)
  elif word == "puffs":
    for x, y in ((0.32, 0.62), (0.68, 0.62), (0.5, 0.38)):
      _disc(draw, n * x, n * y, n * 0.3, (255, 255, 255, 255), None)
  elif word == "bolts":
    zigzag = ((0.6, 0), (0.2, 0.55), (0.5, 0.55), (0.3, 1), (0.85, 0.4))
    corners = [(n * x, n * y) for x, y in (*zigzag, (0.55, 0.4))]
    draw.polygon(corners, (255, 60, 190, 255), ink, round(n * 0.05))
  return picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


def _disc(draw, x, y, radius, fill, outline) -> None:
  box = (x - radius, y - radius, x + radius, y + radius)
  draw.ellipse(box, fill, outline, round(radius * 0.25))


@functools.cache
def background(tone: str, pattern: str) -> Image.Image:
  """A place's background, RGB: a tone above the horizon, a pattern below."""
  n = _BACKGROUND_SIDE
  colour = looks.TONES[tone]
  far = tuple(min(255, int(value * 1.1) + 8) for value in colour)
  near = tuple(int(value * 0.88) for value in colour)
  picture = Image.new("RGB", (n, n), far)
  draw = ImageDraw.Draw(picture)
  horizon = round(n * 0.45)
  draw.rectangle((0, horizon, n, n), colour)
  if pattern == "lined":
    for y in range(horizon, n, 10):
      draw.line((0, y, n, y), near, 3)
  elif pattern == "tiled":
    for x in range(-n, 2 * n, 14):
      draw.line((n / 2 + (x - n / 2) * 0.7, horizon, x, n), near, 3)
  elif pattern == "speckled":
    for k in range(70):
      x, y = (k * 47) % n, horizon + (k * 29) % (n - horizon)
      draw.ellipse((x - 2, y - 2, x + 2, y + 2), near)
  return picture
