"""Writes a small world of interactions as a HICO-DET folder, with detections.

DIR/images/train2015/, test2015/         as input_pipeline/hico_det/folder
DIR/annotations/instances_*.json         form upt
DIR/classes.json, splits.json            splits UC, UV and UO
DIR/detections/train.json, test.json     a simulated detector's boxes
"""

import os
import pathlib
import zlib
from collections.abc import Mapping

import numpy as np

from input_pipeline.hico_det import vocabulary
from input_pipeline.hico_det.detectors import detections
from input_pipeline.hico_det.detectors.detections import (
  Detections,
  ImageDetections,
)
from input_pipeline.small_world.interactions.config import PairWorldConfig
from input_pipeline.small_world.interactions.scenes import (
  PairScene,
  draw,
  draw_scene,
)
from input_pipeline.small_world.interactions.world import (
  NO_INTERACTION,
  PairWorld,
  draw_world,
)
from input_pipeline.small_world.new_folder import new_folder, write_json

DETECTIONS = "detections"
SPLITS = ("train", "test")
_SOURCE = "a small drawn world"
_RARE_PAIRS = 10
# Ranges of scores of true boxes, and of boxes on nothing.
_RIGHT, _WRONG = (0.6, 1.0), (0.15, 0.7)


def write_folder(
  out: str | os.PathLike, config: PairWorldConfig | None = None
) -> pathlib.Path:
  """Draws a world and writes images, annotations and detections.

  Args:
    out: the folder to make; it appears complete, by a rename.
    config: what to draw; None: the standard world of seed 0.

  Raises:
    InputError: the folder exists already, or cannot be written.
  """
  with new_folder(out) as part:
    _write(draw_world(config or PairWorldConfig()), part)
  return pathlib.Path(out)


def scenes(world: PairWorld, split: str) -> dict[str, PairScene]:
  """The scenes of a split by name; an image depends only on its own name."""
  counts = {
    "train": world.config.train_images,
    "test": world.config.test_images,
  }
  drawn = {}
  for number in range(counts[split]):
    name = f"HICO_{split}2015_{number + 1:08d}.jpg"
    key = [world.config.seed, 2, zlib.crc32(name.encode())]
    drawn[name] = draw_scene(world, np.random.default_rng(key))
  return drawn


def classes(
  world: PairWorld, train: Mapping[str, PairScene]
) -> tuple[dict, np.ndarray]:
  """The content of classes.json, and the numbers of the world's labels there.

  Returns:
    The content, and int [n + m]: the number in classes.json of each of the n
    interactions of the world, then of "no interaction" with each of the m
    objects.
  """
  things = len(world.objects)
  rows = [
    *((verb, thing) for verb, thing in world.interactions),
    *((len(world.actions), thing) for thing in range(things)),
  ]
  order = sorted(range(len(rows)), key=lambda i: rows[i][::-1])
  place = np.argsort(order)
  counts = np.zeros(len(rows), int)
  for scene in train.values():
    for pair in scene.pairs:
      counts[_labels(world, pair)] += 1
  person = vocabulary.load()
  content = {
    "source": _SOURCE,
    "verbs": [[v.name, v.phrase] for v in world.actions]
    + [list(NO_INTERACTION)],
    # Persons come first.
    "objects": [
      [vocabulary.PERSON, "a", int(person.category_ids[person.person])],
      *([x.name, x.article, x.category_id] for x in world.objects),
    ],
    "interactions": [[rows[i][0], rows[i][1] + 1] for i in order],
    "rare": sorted(int(place[i]) for i in np.flatnonzero(counts < _RARE_PAIRS)),
  }
  return content, place


def _labels(world: PairWorld, pair) -> list[int]:
  """Labels of a pair; that of "no interaction" if it has none."""
  return list(pair.labels) or [len(world.interactions) + pair.thing]


def _write(world: PairWorld, folder: pathlib.Path) -> None:
  drawn = {split: scenes(world, split) for split in SPLITS}
  content, place = classes(world, drawn["train"])
  write_json(folder / vocabulary.CLASSES_FILE, content)
  unseen = {
    name: {"unseen": sorted(int(place[i]) for i in numbers)}
    for name, numbers in world.unseen.items()
  }
  write_json(folder / "splits.json", {"source": _SOURCE, "splits": unseen})
  (folder / "annotations").mkdir()
  (folder / DETECTIONS).mkdir()
  words = vocabulary.load(folder)
  for split, scene_of in drawn.items():
    images = folder / "images" / f"{split}2015"
    images.mkdir(parents=True)
    for name, scene in scene_of.items():
      draw(scene).save(
        images / name, "JPEG", quality=world.config.jpeg_quality, subsampling=0
      )
    write_json(
      folder / "annotations" / f"instances_{split}2015.json",
      _instances(world, scene_of, content, place),
    )
    detections.write(
      folder / DETECTIONS / f"{split}.json", _detected(world, scene_of), words
    )


def _instances(world, scene_of, content, place) -> dict:
  """The annotations in UPT's form, which counts pixels from 1."""
  rows = content["interactions"]
  result = {
    "annotation": [],
    "filenames": list(scene_of),
    "size": [[scene.width, scene.height] for scene in scene_of.values()],
    "empty": [],
    "verbs": [name for name, _ in content["verbs"]],
    "objects": [name for name, _, _ in content["objects"]],
    "correspondence": [[i, o, v] for i, (v, o) in enumerate(rows)],
  }
  for scene in scene_of.values():
    labels = [
      (scene.boxes(pair) + 1, int(place[label]))
      for pair in scene.pairs
      for label in _labels(world, pair)
    ]
    result["annotation"].append(
      {
        "boxes_h": [boxes[0].tolist() for boxes, _ in labels],
        "boxes_o": [boxes[1].tolist() for boxes, _ in labels],
        "hoi": [label for _, label in labels],
        "verb": [rows[label][0] for _, label in labels],
        "object": [rows[label][1] for _, label in labels],
      }
    )
  return result


def _detected(
  world: PairWorld, scene_of: Mapping[str, PairScene]
) -> Detections:
  config = world.config
  name = (
    f"imagined detector (jitter {config.jitter}, missed {config.missed}, "
    f"false {config.false_boxes}, mistaken {config.mistaken})"
  )
  return Detections(
    name, {image: _detect(world, image, s) for image, s in scene_of.items()}
  )


def _detect(world: PairWorld, image: str, scene: PairScene) -> ImageDetections:
  """The boxes with noise: some missed, some on nothing, some mistaken."""
  config, count = world.config, len(world.objects)
  key = [config.seed, 4, zlib.crc32(image.encode())]
  rng = np.random.default_rng(key)
  boxes, objects, scores = [], [], []

  def add(box, kind, between):
    size = np.tile([box[2] - box[0], box[3] - box[1]], 2)
    moved = np.sort(
      (box + config.jitter * size * rng.normal(size=4)).reshape(2, 2), axis=0
    )
    limit = np.array([scene.width, scene.height]) - 1
    boxes.append(np.clip(moved, 0, limit).ravel())
    objects.append(kind)
    scores.append(rng.uniform(*between))

  for pair in scene.pairs:
    for box, kind in zip(
      scene.boxes(pair).astype(float), (0, pair.thing + 1), strict=True
    ):
      if kind and rng.random() < config.mistaken:
        kind = 1 + int(rng.integers(count))
      if rng.random() >= config.missed:
        add(box, kind, _RIGHT)
  for _ in range(int(rng.poisson(config.false_boxes))):
    side = rng.uniform(0.1, 0.4, 2) * min(scene.width, scene.height)
    low = rng.uniform(0, 1, 2) * ([scene.width, scene.height] - side)
    add(np.concatenate([low, low + side]), int(rng.integers(count + 1)), _WRONG)
  return ImageDetections.of(
    np.array(boxes), np.array(objects, np.int32), np.array(scores)
  )
