"""The exported student in words and pixels; `letterbox` needs Pillow as well.

python predict.py photo.jpg ...

Prints a line of JSON for each image. An unreadable one gets {"image",
"error"}; the others go on, and the exit code is 2.
"""

import json
import pathlib
import sys

import numpy as np
from load import HERE, load, read_labels

NO_VERB = -1  # the best verb's frame is filled
# Formats that Pillow decodes by itself; others start programs or are vectors.
FORMATS = (
  *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"),
  *("AVIF", "JPEG2000", "ICO", "TGA"),
)
# An image above LARGE pixels is first shrunk to at least KEPT on its longer
# side, a JPEG while it is decoded.
LARGE, KEPT = 16_000_000, 2048
# EXIF orientation -> Pillow's name of its inverse; from 5 on width and height
# are swapped.
ORIENTATION = 0x0112
TURNS = {
  2: "FLIP_LEFT_RIGHT",
  3: "ROTATE_180",
  4: "FLIP_TOP_BOTTOM",
  5: "TRANSPOSE",
  6: "ROTATE_270",
  7: "TRANSVERSE",
  8: "ROTATE_90",
}


def letterbox(image, side):
  """Pillow image -> (uint8 [side, side, 3], (height, width)), as trained."""
  from PIL import Image

  (width, height), seen = image.size, shrunk(image)
  turn = orientation(image)
  if turn in TURNS:
    seen = seen.transpose(Image.Transpose[TURNS[turn]])
    if turn >= 5:
      width, height = height, width
  seen = to_rgb(seen)
  scale = 1 / max(seen.size)
  size = tuple(max(1, round(x * scale * side)) for x in seen.size)
  small = seen.resize(size, Image.Resampling.BICUBIC)
  canvas = Image.new("RGB", (side, side), (123, 117, 104))
  canvas.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
  return np.asarray(canvas), (height, width)


def orientation(image):
  """The tag's value after loading, when Pillow has turned TIFF images."""
  try:
    return image.getexif().get(ORIENTATION, 1)
  except Exception:  # a damaged tag is ignored
    return 1


def shrunk(image):
  """A large image at a smaller size; others unchanged."""
  if image.width * image.height <= LARGE:
    image.load()
    return image
  scale = KEPT / max(image.size)
  image.draft(None, tuple(max(1, round(x * scale)) for x in image.size))
  image.load()
  factor = max(1, max(image.size) // KEPT)
  if factor == 1:
    return image
  if image.mode not in ("RGB", "RGBA", "L", "LA", "CMYK"):
    image = to_rgb(image)
  return image.reduce((min(factor, image.width), min(factor, image.height)))


def to_rgb(image):
  """Any mode to RGB: transparent is white, 16 bits and floats become 8."""
  from PIL import Image

  if image.mode.startswith("I;16") or image.mode in ("I", "F"):
    values = np.asarray(image, np.float32)
    finite = values[np.isfinite(values)]
    low, high = 0.0, 65535.0 if finite.max(initial=0) > 255 else 255.0
    odd = finite.min(initial=0) < 0 or finite.max(initial=0) > 65535
    if finite.size and (image.mode == "F" or odd):  # it has no fixed scale
      low, high = float(finite.min()), float(finite.max())
    share = (values - low) / max(high - low, 1e-12)
    share = np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0)
    grey = (share.clip(0, 1) * 255).round().astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
      grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")
  clear = image.mode in ("RGBA", "LA", "PA", "La", "RGBa")
  if not clear and "transparency" not in image.info:
    return image.convert("RGB")
  if image.mode == "La":  # Pillow's only conversion
    image = image.convert("LA")
  image = image.convert("RGBA")
  ground = Image.new("RGBA", image.size, "white")
  ground.alpha_composite(image)
  return ground.convert("RGB")


class Student:
  """`form` is "baked" or "passed"; by default the first that exists."""

  def __init__(self, folder=HERE, form=None):
    folder = pathlib.Path(folder)
    self.labels = read_labels(folder)
    form = form or self.labels["forms"][0]
    self.call = load(folder, form)

  def __call__(self, pixels, sizes, verbs=None):
    """Pixels [b, s, s, 3] and (height, width) of the originals -> dicts.

    `verbs` has the verb of each image if it is known, None for others.
    """
    names = self.labels["verbs"]
    verbs = verbs or [None] * len(sizes)
    verbs = [NO_VERB if v is None else names.index(v) for v in verbs]
    outputs = self.call(
      np.asarray(pixels, np.uint8),
      np.asarray(sizes, np.int32),
      np.asarray(verbs, np.int32),
    )
    return [
      self.describe(
        {name: x[i] for name, x in outputs.items()}, *map(int, size)
      )
      for i, size in enumerate(sizes)
    ]

  def describe(self, outputs, height, width):
    """One image's outputs in words, boxes in pixels of the original."""
    labels, roles = self.labels, []
    boxes = to_pixels(outputs["box"], height, width)
    for i, role in enumerate(labels["frames"][outputs["verb"]]):
      guesses = outputs["noun_index"][i], outputs["noun_probability"][i]
      nouns = [
        {
          "noun": labels["nouns"][j],
          "probability": float(p),
          "class_id": labels["noun_classes"][j],
        }
        for j, p in zip(*guesses, strict=True)
        if j < len(labels["nouns"])  # the others are filler
      ]
      logit = float(outputs["confidence"][i])
      box = boxes[i].tolist() if logit >= 0 else None
      share = float(1 / (1 + np.exp(-logit)))
      roles.append(
        {"role": role, "nouns": nouns, "box": box, "confidence": share}
      )
    guesses = outputs["verb_index"], outputs["verb_probability"]
    verbs = [
      {"verb": labels["verbs"][j], "probability": float(p)}
      for j, p in zip(*guesses, strict=True)
      if j < len(labels["verbs"])
    ]
    return {
      "width": width,
      "height": height,
      "verbs": verbs,
      "verb": labels["verbs"][outputs["verb"]],
      "roles": roles,
    }


def to_pixels(boxes, height, width):
  """cx, cy, w, h over the canvas side -> x1, y1, x2, y2 in the original."""
  centre, half = boxes[:, :2].astype(float), boxes[:, 2:].astype(float) / 2
  corners = np.concatenate([centre - half, centre + half], axis=1)
  limits, longer = np.array([width, height] * 2), max(width, height)
  return np.clip(corners * longer - (longer - limits) / 2, 0, limits)


def main(names):
  """Command line; returns the exit code."""
  from PIL import Image

  if not names or names[0] in ("-h", "--help"):
    print(__doc__.strip(), file=sys.stderr)
    return 0 if names else 2
  try:
    student, code = Student(), 0
  except (OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  Image.init()
  formats = [form for form in FORMATS if form in Image.OPEN]
  for name in names:
    try:
      with Image.open(name, formats=formats) as image:
        pixels, size = letterbox(image, student.labels["side"])
      result = student([pixels], [size])[0]
    except Exception as error:  # of damaged files Pillow raises nearly any
      result, code = {"error": str(error) or type(error).__name__}, 2
    print(json.dumps({"image": name, **result}), flush=True)
  return code


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
