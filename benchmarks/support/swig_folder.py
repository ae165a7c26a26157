"""Writes a folder as large as SWiG, from its vocabulary and image names.

The vocabulary's folder has what SWiG's release has besides boxes and images:
imsitu_space.json, the index files, image_splits.json (names by split) and
verb_role_noun_support_train.json (all nouns of training by verb and role). The
new folder has those image names, frames with those nouns (every noun of every
verb's role occurs in training), random boxes, and a few pictures under many
names.
"""

import dataclasses
import io
import itertools
import json
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress
from input_pipeline.ov_swig import layout
from input_pipeline.schema import ANNOTATORS

IMAGE_NAMES = "image_splits.json"
SUPPORT = "verb_role_noun_support_train.json"
# A file may have 65,000 names on ext4, fewer elsewhere.
_PICTURES = 512
_UNGROUNDED = 0.3


@dataclasses.dataclass(frozen=True)
class Look:
  """The look of pictures.

  Attributes:
    sides: smallest height and width, and one more than the largest, pixels.
    cells: number of blurred colours along each side.
    grain: standard deviation of noise, which makes files as large as those
      of photographs.
  """

  sides: tuple[int, int]
  cells: int
  grain: float


TINY = Look(sides=(24, 64), cells=4, grain=0.0)
# SWiG's images have 512 pixels on the shorter side; here about 50 kB each.
PHOTOGRAPH = Look(sides=(384, 640), cells=16, grain=8.0)


class Maker:
  """Records with real names, frames and nouns, and random boxes.

  Args:
    source: the vocabulary's folder.
    share: the share of each split's image names to use.
    look: the look of the pictures.
    seed: seed of boxes and pictures.
  """

  def __init__(
    self,
    source: pathlib.Path,
    share: float = 1.0,
    look: Look = TINY,
    seed: int = 0,
  ):
    read = layout.read_json
    space = read(source / layout.SPACE_FILE)
    self.source = source
    self._frames = {v: tuple(e["order"]) for v, e in space["verbs"].items()}
    names = read(source / IMAGE_NAMES)
    self.names = {
      split: names[split][: max(1, round(share * len(names[split])))]
      for split in layout.SPLITS
    }
    support = read(source / SUPPORT)
    self._nouns: dict[tuple[str, str], Iterator[str]] = {
      (verb, role): itertools.cycle(nouns)
      for verb, roles in support.items()
      for role, nouns in roles.items()
    }
    self._rng = np.random.default_rng(seed)
    self._look = look
    sides = self._rng.integers(*look.sides, (_PICTURES, 2))
    self._sizes = [(int(height), int(width)) for height, width in sides]

  def records(self, split: str) -> dict[str, dict[str, Any]]:
    """Content of a split's JSON; in training every noun occurs in turn."""
    return {name: self._record(name) for name in self.names[split]}

  def picture(self, number: int) -> bytes:
    """One of the JPEGs."""
    height, width = self._sizes[number]
    cells = (self._look.cells,) * 2
    coarse = self._rng.integers(0, 256, (*cells, 3), dtype=np.uint8)
    blurred = np.asarray(Image.fromarray(coarse).resize((width, height)))
    noise = self._look.grain * self._rng.standard_normal(blurred.shape)
    image = Image.fromarray((blurred + noise).clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()

  def _record(self, name: str) -> dict[str, Any]:
    verb = name.rpartition("_")[0]
    height, width = self._sizes[number_of(name)]
    frame = self._frames[verb]
    frames = [
      {role: next(self._nouns[verb, role]) for role in frame}
      for _ in range(ANNOTATORS)
    ]
    boxes = {role: self._box(height, width) for role in frame}
    return {
      "verb": verb,
      "height": height,
      "width": width,
      "bb": boxes,
      "frames": frames,
    }

  def _box(self, height: int, width: int) -> list[int]:
    if self._rng.random() < _UNGROUNDED:
      return [-1, -1, -1, -1]
    x1, y1 = self._rng.integers(0, (width - 1, height - 1))
    x2, y2 = self._rng.integers((x1 + 1, y1 + 1), (width + 1, height + 1))
    return [int(v) for v in (x1, y1, x2, y2)]


def number_of(name: str) -> int:
  """The number of the picture for an image name."""
  return zlib.crc32(name.encode()) % _PICTURES


def make(
  source: pathlib.Path,
  out: pathlib.Path,
  share: float = 1.0,
  look: Look = TINY,
) -> dict[str, int]:
  """Writes the folder; returns the number of images by split.

  Raises:
    InputError: `out` exists, or the vocabulary lacks a file.
  """
  if out.exists():
    raise InputError(f"{out} exists already", "give another --out")
  maker = Maker(source, share, look)
  jsons, images = out / layout.JSONS_FOLDER, out / layout.IMAGES_FOLDER
  jsons.mkdir(parents=True)
  images.mkdir()
  index_files = (layout.VERB_FILE, layout.ROLE_FILE, layout.NOUN_FILE)
  for name in (layout.SPACE_FILE, *index_files):
    (jsons / name).write_bytes((source / name).read_bytes())
  for split in layout.SPLITS:
    (jsons / f"{split}.json").write_text(json.dumps(maker.records(split)))
  pictures = out / "pictures"
  pictures.mkdir()
  for number in range(_PICTURES):
    (pictures / f"{number}.jpg").write_bytes(maker.picture(number))
  total = sum(map(len, maker.names.values()))
  with Progress("write", total, "images") as progress:
    for name in itertools.chain.from_iterable(maker.names.values()):
      os.link(pictures / f"{number_of(name)}.jpg", images / name)
      progress.advance()
  return {split: len(names) for split, names in maker.names.items()}
