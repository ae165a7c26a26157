"""A small HICO-DET folder, the same in both public annotation forms."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from input_pipeline.hico_det import vocabulary

SHARED = (
  pathlib.Path(__file__).resolve().parent.parent.parent
  / "shared"
  / "data"
  / "hico_det"
)
WORDS = vocabulary.load()
WIDTH, HEIGHT = 64, 48
# Boxes counted from 0. Image -> (person, object, interaction).
RIDER, BICYCLE, DOG = [4, 2, 30, 40], [0, 20, 40, 47], [41, 25, 63, 47]
OTHER = [33, 0, 50, 30]
IMAGES = {
  "train": {
    # One pair with two labels, one of them unseen in UV ("ride").
    "HICO_train2015_00000001.jpg": [
      (RIDER, BICYCLE, "ride bicycle"),
      (RIDER, BICYCLE, "sit on bicycle"),
    ],
    # A dog is unseen in UO; the person takes part in a seen pair as well.
    "HICO_train2015_00000002.jpg": [
      (RIDER, DOG, "walk dog"),
      (RIDER, BICYCLE, "push bicycle"),
      (OTHER, DOG, "feed dog"),
    ],
    "HICO_train2015_00000003.jpg": [(OTHER, RIDER, "hug person")],
    "HICO_train2015_00000004.jpg": [(RIDER, DOG, "no interaction dog")],
  },
  "test": {
    "HICO_test2015_00000001.jpg": [
      (RIDER, BICYCLE, "ride bicycle"),
      (OTHER, DOG, "pet dog"),
    ],
    "HICO_test2015_00000002.jpg": [],
    "HICO_test2015_00000003.jpg": [(RIDER, DOG, "walk dog")],
  },
}
FOLDERS = {"train": "train2015", "test": "test2015"}
QPIC = {"train": "trainval_hico.json", "test": "test_hico.json"}
UPT = {"train": "instances_train2015.json", "test": "instances_test2015.json"}


def number(name: str) -> int:
  return int(WORDS.interactions([name], "test")[0])


def shifted(box: Sequence[float], by: int) -> list[float]:
  return [x + by for x in box]


def qpic(split: str) -> list[dict]:
  """As PPDM and GEN-VLKT publish it: train from 0, test from 1."""
  base = {"train": 0, "test": 1}[split]
  entries = []
  for name, labels in IMAGES[split].items():
    boxes, rows = [], []
    for human, object_, interaction in labels:
      hoi = number(interaction)
      places = []
      for box, kind in (
        (human, WORDS.person),
        (object_, int(WORDS.object_of[hoi])),
      ):
        entry = {
          "bbox": shifted(box, base),
          "category_id": int(WORDS.category_ids[kind]),
        }
        if entry not in boxes:
          boxes.append(entry)
        places.append(boxes.index(entry))
      row = {
        "subject_id": places[0],
        "object_id": places[1],
        "category_id": int(WORDS.verb_of[hoi]) + 1,
      }
      if split == "train":
        row["hoi_category_id"] = hoi + 1
      rows.append(row)
    entries.append(
      {"file_name": name, "annotations": boxes, "hoi_annotation": rows}
    )
  return entries


def upt(split: str, objects: str = "coco") -> dict:
  """As fredzzhang/hicodet publishes it, all from 1.

  Args:
    split: 'train' or 'test'.
    objects: 'coco' numbers them as COCO does, 'name' by their names.
  """
  order = list(WORDS.objects)
  order = sorted(order) if objects == "name" else order
  place = {name: i for i, name in enumerate(order)}
  found = {
    "annotation": [],
    "filenames": [],
    "size": [],
    "empty": [],
    "verbs": list(WORDS.verbs),
    "objects": order,
    "correspondence": [
      [i, place[WORDS.objects[WORDS.object_of[i]]], int(WORDS.verb_of[i])]
      for i in range(len(WORDS))
    ],
  }
  for row, (name, labels) in enumerate(IMAGES[split].items()):
    hois = [number(interaction) for _, _, interaction in labels]
    found["annotation"].append(
      {
        "boxes_h": [shifted(human, 1) for human, _, _ in labels],
        "boxes_o": [shifted(object_, 1) for _, object_, _ in labels],
        "hoi": hois,
        "verb": [int(WORDS.verb_of[hoi]) for hoi in hois],
        "object": [place[WORDS.objects[WORDS.object_of[hoi]]] for hoi in hois],
      }
    )
    found["filenames"].append(name)
    found["size"].append([WIDTH, HEIGHT])
    found["empty"] += [] if labels else [row]
  return found


def write(folder: pathlib.Path, form: str) -> pathlib.Path:
  """Writes images and annotations of a form; returns the folder."""
  (folder / "annotations").mkdir(parents=True)
  names = {"qpic": QPIC, "upt": UPT}[form]
  content = {"qpic": qpic, "upt": upt}[form]
  pixels = np.random.default_rng(0)
  for split, directory in FOLDERS.items():
    target = folder / "images" / directory
    target.mkdir(parents=True)
    for name in IMAGES[split]:
      drawn = pixels.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
      Image.fromarray(drawn).save(target / name)
    path = folder / "annotations" / names[split]
    path.write_text(json.dumps(content(split)))
  return folder


# Boxes as other tools write them.
IN_1000 = [1000 / WIDTH, 1000 / HEIGHT] * 2
SHARES = [1 / WIDTH, 1 / HEIGHT] * 2
# DETR sees the shorter side as 800 pixels, the longer one as 1333 at most.
RESIZED = [min(800 / HEIGHT, 1333 / WIDTH)] * 4


def scaled(by):
  return lambda box: [x * y for x, y in zip(box, by, strict=True)]


def with_size(box):
  return [*box[:2], box[2] - box[0] + 1, box[3] - box[1] + 1]


def centred(box):
  low, high = np.array(box[:2]), np.array(box[2:])
  return [*((low + high) / 2).tolist(), *(high - low).tolist()]


# What is written of x1 y1 x2 y2 in pixels from 0, and what is said of it.
BOXES = [
  (lambda box: box, None),
  (scaled(SHARES), "6 boxes lie within 0 and 1|as shares of the image"),
  (lambda b: scaled(SHARES)(centred(b)), "x y width height or cx cy w h"),
  (scaled(IN_1000), "thousandths of the image, 6"),
  (scaled(RESIZED), "resized to 800 pixels, 6"),
  (with_size, "as x y width height or cx cy w h may look"),
  (lambda b: [b[2], b[3], b[0], b[1]], "of negative size"),
  (lambda b: [b[1], b[0], b[3], b[2]], "y1 x1 y2 x2 in pixels, 6"),
  (lambda b: [b[0] + 5000, b[1], b[2] + 5000, b[3]], "6 boxes lie outside"),
]
