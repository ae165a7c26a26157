"""Writes a small world as a SWiG-layout folder (see docs/formats.md)."""

import io
import os
import pathlib
import zlib
from collections.abc import Iterator

import numpy as np

from input_pipeline.schema import GROUPS
from input_pipeline.small_world.new_folder import new_folder, write_json
from input_pipeline.small_world.painting import draw
from input_pipeline.small_world.situations.config import WorldConfig
from input_pipeline.small_world.situations.scenes import Scene, draw_scene
from input_pipeline.small_world.situations.world import (
  Verb,
  World,
  draw_world,
  role_places,
)

SPLITS = ("train", "dev", "test")
_ANCHOR_WORDS = {
  "actor": "the one with eyes and arms, who acts",
  "main": "the main other shape",
  "hand": "the shape in the hand, at the left of the agent",
  "lower left": "the shape in the lower left corner",
  "lower right": "the shape in the lower right corner",
  "background": "the background behind everything",
}


def write_folder(
  out: str | os.PathLike, config: WorldConfig | None = None
) -> pathlib.Path:
  """Draws a world and writes its images and annotations.

  Args:
    out: the folder to make; it appears complete, by a rename.
    config: what to draw; None: the standard world of seed 0.

  Returns:
    The folder.

  Raises:
    InputError: the folder exists already, or cannot be written.
  """
  with new_folder(out) as part:
    _write(draw_world(config or WorldConfig()), part)
  return pathlib.Path(out)


def images_per_verb(world: World, split: str) -> dict[str, int]:
  """Verb name -> number of images in a split.

  Training counts of seen verbs fall off exponentially, like SWiG's long tail;
  unseen verbs have no training image.
  """
  config = world.config
  if split != "train":
    per = config.dev_images if split == "dev" else config.test_images
    counts = dict(zip(GROUPS, per, strict=True))
    return {verb.name: counts[verb.group] for verb in world.verbs}
  seen = [verb.name for verb in world.verbs if verb.group == "seen"]
  least, most = config.train_seen
  rng = np.random.default_rng([config.seed, 1])
  ranks = np.linspace(0, 1, len(seen))[rng.permutation(len(seen))]
  falling = (np.exp(-2.6 * ranks) - np.exp(-2.6)) / (1 - np.exp(-2.6))
  tail = np.round(least + (most - least) * falling).astype(int)
  counts = dict(zip(seen, tail.tolist(), strict=True))
  for verb in world.verbs:
    if verb.group == "rare":
      low, high = config.train_rare
      counts[verb.name] = int(rng.integers(low, high + 1))
  return {v.name: counts[v.name] for v in world.verbs if v.name in counts}


def scenes(world: World, split: str) -> Iterator[tuple[str, Scene]]:
  """The named scenes of a split; an image depends only on its own name."""
  verbs: dict[str, Verb] = {verb.name: verb for verb in world.verbs}
  # Numbers in names continue from split to split, as in SWiG.
  before = SPLITS[: SPLITS.index(split)]
  start = {
    name: 1 + sum(images_per_verb(world, s).get(name, 0) for s in before)
    for name in verbs
  }
  for name, count in images_per_verb(world, split).items():
    for number in range(start[name], start[name] + count):
      image = f"{name}_{number}.jpg"
      key = [world.config.seed, 2, zlib.crc32(image.encode())]
      yield image, draw_scene(world, verbs[name], np.random.default_rng(key))


def space(world: World) -> dict[str, dict]:
  """The content of imsitu_space.json, in its official form."""
  return {
    "verbs": {v.name: _verb_entry(v) for v in world.verbs},
    "nouns": {
      noun.id: {"gloss": [noun.gloss], "def": noun.definition}
      for noun in world.nouns
    },
  }


def _verb_entry(verb: Verb) -> dict:
  roles = {
    role: {
      "framenet": role,
      "def": _ANCHOR_WORDS[anchor],
      "question": f"what is the {role} when it is {verb.name}?",
    }
    for role, anchor in role_places(verb.roles).items()
  }
  return {
    "abstract": verb.abstract,
    "def": verb.definition,
    "order": list(verb.roles),
    "roles": roles,
  }


def _write(world: World, folder: pathlib.Path) -> None:
  images, jsons = folder / "images_512", folder / "SWiG_jsons"
  images.mkdir()
  jsons.mkdir()
  for split in SPLITS:
    records = {}
    for name, scene in scenes(world, split):
      (images / name).write_bytes(_jpeg(scene, world.config.jpeg_quality))
      records[name] = _record(scene)
    write_json(jsons / f"{split}.json", records)
  write_json(jsons / "imsitu_space.json", space(world))
  groups = {
    group: [verb.name for verb in world.verbs if verb.group == group]
    for group in GROUPS
  }
  write_json(jsons / "ov_splits.json", {"version": 1, **groups})
  roles = sorted({role for verb in world.verbs for role in verb.roles})
  classes = ["blank", *(noun.id for noun in world.nouns), "oov", "Pad"]
  _write_lines(jsons / "verb_indices.txt", [v.name for v in world.verbs])
  _write_lines(jsons / "role_indices.txt", roles)
  _write_lines(
    jsons / "train_classes.csv",
    [f"{name},{index}" for index, name in enumerate(classes)],
  )


def _record(scene: Scene) -> dict:
  return {
    "verb": scene.verb.name,
    "height": scene.height,
    "width": scene.width,
    "bb": scene.boxes(),
    "frames": list(scene.frames),
  }


def _jpeg(scene: Scene, quality: int) -> bytes:
  buffer = io.BytesIO()
  draw(scene).save(buffer, "JPEG", quality=quality, subsampling=0)
  return buffer.getvalue()


def _write_lines(path: pathlib.Path, lines: list[str]) -> None:
  path.write_text("\n".join(lines) + "\n")
