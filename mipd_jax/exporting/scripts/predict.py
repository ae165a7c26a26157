"""The exported student in words and pixels; `letterbox` needs Pillow as well.

python predict.py photo.jpg ...
"""

import json
import pathlib
import sys

import numpy as np
from load import HERE, load

NO_VERB = -1  # the best verb's frame is filled


def letterbox(image, side):
  """Pillow image -> (uint8 [side, side, 3], (height, width)), as trained."""
  from PIL import Image, ImageOps

  image = ImageOps.exif_transpose(image).convert("RGB")
  scale = 1 / max(image.size)
  width, height = (max(1, round(x * scale * side)) for x in image.size)
  small = image.resize((width, height), Image.Resampling.BICUBIC)
  canvas = Image.new("RGB", (side, side), (123, 117, 104))
  canvas.paste(small, ((side - width) // 2, (side - height) // 2))
  return np.asarray(canvas), (image.height, image.width)


class Student:
  """`form` is "baked" or "passed", by default the first that is there."""

  def __init__(self, folder=HERE, form=None):
    folder = pathlib.Path(folder)
    self.labels = json.loads((folder / "labels.json").read_text("utf-8"))
    self.call = load(folder, form or self.labels["forms"][0])

  def __call__(self, pixels, sizes, verbs=None):
    """Pixels [b, s, s, 3] and (height, width) of the originals -> dicts.

    `verbs` names the verb of each image whose verb is known, None for others.
    """
    known = self.labels["verbs"]
    verbs = verbs or [None] * len(sizes)
    verbs = [NO_VERB if v is None else known.index(v) for v in verbs]
    found = self.call(
      np.asarray(pixels, np.uint8),
      np.asarray(sizes, np.int32),
      np.asarray(verbs, np.int32),
    )
    return [
      self.describe({name: x[i] for name, x in found.items()}, *map(int, size))
      for i, size in enumerate(sizes)
    ]

  def describe(self, found, height, width):
    """One image's outputs in words, boxes in pixels of the original."""
    labels, roles = self.labels, []
    boxes = to_pixels(found["box"], height, width)
    for i, role in enumerate(labels["frames"][found["verb"]]):
      guesses = found["noun_index"][i], found["noun_probability"][i]
      nouns = [
        {
          "noun": labels["nouns"][j],
          "probability": float(p),
          "class_id": labels["noun_classes"][j],
        }
        for j, p in zip(*guesses, strict=True)
        if j < len(labels["nouns"])  # the others are filler
      ]
      logit = float(found["confidence"][i])
      box = boxes[i].tolist() if logit >= 0 else None
      share = float(1 / (1 + np.exp(-logit)))
      roles.append(
        {"role": role, "nouns": nouns, "box": box, "confidence": share}
      )
    guesses = found["verb_index"], found["verb_probability"]
    verbs = [
      {"verb": labels["verbs"][j], "probability": float(p)}
      for j, p in zip(*guesses, strict=True)
      if j < len(labels["verbs"])
    ]
    return {
      "width": width,
      "height": height,
      "verbs": verbs,
      "verb": labels["verbs"][found["verb"]],
      "roles": roles,
    }


def to_pixels(boxes, height, width):
  """cx, cy, w, h over the canvas side -> x1, y1, x2, y2 in the original."""
  centre, half = boxes[:, :2].astype(float), boxes[:, 2:].astype(float) / 2
  corners = np.concatenate([centre - half, centre + half], axis=1)
  limits, longer = np.array([width, height] * 2), max(width, height)
  return np.clip(corners * longer - (longer - limits) / 2, 0, limits)


if __name__ == "__main__":
  from PIL import Image

  student = Student()
  for name in sys.argv[1:]:
    pixels, size = letterbox(Image.open(name), student.labels["side"])
    print(json.dumps({"image": name, **student([pixels], [size])[0]}))
