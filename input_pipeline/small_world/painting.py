"""Draws a scene as an image.

Cues are local: each attribute of a verb is visible near the actor or at a
fixed spot. Models learned purely relational cues far too slowly.
"""

from PIL import Image, ImageDraw

from input_pipeline.small_world import looks, sprites
from input_pipeline.small_world.situations.scenes import Scene

_INK = (40, 34, 44)
_SKIN = (255, 236, 204)
_MARK_AT = ((0.12, 0.14), (0.88, 0.14))
_MARK_SIZE = 0.22
# Hand of the right arm relative to the shoulder, in sizes of the actor.
_ARMS = {"raised": (0.3, -0.7), "spread": (0.55, 0.0), "lowered": (0.25, 0.7)}


def draw(scene: Scene) -> Image.Image:
  """The scene as an RGB image of its width and height."""
  size = (scene.width, scene.height)
  words = [
    names[value]
    for names, value in zip(looks.ATTRIBUTES.values(), scene.code, strict=True)
  ]
  _, mark, arms, link, _ = words
  image = sprites.background(*scene.background.look).resize(
    size, Image.Resampling.BILINEAR
  )
  if scene.fillers.get(scene.main_role) is None:
    _draw_plinth(image, scene)
  for thing in scene.things:
    x1, y1, x2, y2 = (round(value) for value in thing.box)
    paste(image, sprites.thing(*thing.noun.look), x1, y1, x2 - x1, y2 - y1)
  if not any(thing.anchor == "actor" for thing in scene.things):
    _draw_cloud(image, scene)
  image = _light(image, looks.LIGHTS[scene.code[4]])
  pen = ImageDraw.Draw(image)
  draw_link(pen, scene, link)
  draw_actor(pen, scene, arms)
  shorter = min(size)
  side = round(_MARK_SIZE * shorter)
  for x, y in _MARK_AT:
    left, top = round(x * size[0] - side / 2), round(y * size[1] - side / 2)
    paste(image, sprites.mark(mark), left, top, side, side)
  return image


def paste(
  image: Image.Image, sprite: Image.Image, x: int, y: int, w: int, h: int
) -> None:
  sprite = sprite.resize((max(1, w), max(1, h)), Image.Resampling.BILINEAR)
  image.paste(sprite, (x, y), sprite)


def _light(image: Image.Image, factors: tuple[float, ...]) -> Image.Image:
  if factors == (1.0, 1.0, 1.0):
    return image
  table = [int(value * factor) for factor in factors for value in range(256)]
  return image.point(table)


def _draw_cloud(image: Image.Image, scene: Scene) -> None:
  """Draws a cloud as the actor if the frame has no agent, as for weather."""
  (x, y), size = scene.actor
  pen = ImageDraw.Draw(image)
  for dx, dy in ((-0.28, 0.1), (0.28, 0.1), (0.0, -0.12), (0.0, 0.14)):
    cx, cy, radius = x + dx * size, y + dy * size, size * 0.28
    box = (cx - radius, cy - radius, cx + radius, cy + radius)
    pen.ellipse(box, (236, 236, 240))


def _draw_plinth(image: Image.Image, scene: Scene) -> None:
  """Draws a grey block that shows the layout if there is no main thing."""
  (x, y), size = scene.main
  half = size * 0.42
  box = (x - half, y - half, x + half, y + half)
  pen = ImageDraw.Draw(image)
  pen.rectangle(box, (150, 150, 150), _INK, max(1, round(size * 0.05)))


def draw_link(pen: ImageDraw.ImageDraw, scene: Scene, link: str) -> None:
  if link == "loose":
    return
  (x1, y1), size = scene.actor
  (x2, y2), other = scene.main
  y1, y2 = y1 - 0.3 * size, y2 - 0.3 * other
  bend = (max(x1, x2) + 0.9 * size, min(y1, y2) - 0.2 * size)
  curve = []
  for k in range(13):
    t = k / 12
    a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
    curve.append((a * x1 + b * bend[0] + c * x2, a * y1 + b * bend[1] + c * y2))
  width = max(2, round(size * 0.26))
  if link == "roped":
    pen.line(curve, _INK, width + 2, joint="curve")
    pen.line(curve, (186, 255, 40), width, joint="curve")
  else:
    radius = size * 0.19
    for x, y in curve[2:-1:2]:
      box = (x - radius, y - radius, x + radius, y + radius)
      pen.ellipse(box, _INK, (255, 255, 255), max(1, round(radius * 0.35)))


def draw_actor(pen: ImageDraw.ImageDraw, scene: Scene, arms: str) -> None:
  """Draws eyes and arms, which mark the actor."""
  (x, y), size = scene.actor
  width = max(2, round(size * 0.2))
  reach_x, reach_y = _ARMS[arms]
  for side in (-1, 1):
    shoulder = (x + side * 0.3 * size, y + 0.05 * size)
    hand = (shoulder[0] + side * reach_x * size, shoulder[1] + reach_y * size)
    pen.line((shoulder, hand), _INK, width + 2)
    pen.line((shoulder, hand), _SKIN, width)
    radius = width * 0.95
    box = [c + s * radius for s in (-1, 1) for c in hand]
    pen.ellipse(box, _SKIN, _INK)
    eye_x, eye_y, eye = x + side * 0.15 * size, y - 0.12 * size, size * 0.12
    pen.ellipse(
      (eye_x - eye, eye_y - eye, eye_x + eye, eye_y + eye), (255,) * 3, _INK
    )
    eye *= 0.45
    pen.ellipse((eye_x - eye, eye_y - eye, eye_x + eye, eye_y + eye), _INK)
