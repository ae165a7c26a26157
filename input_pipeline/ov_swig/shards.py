"""The examples of a folder, shard by shard, as the TFDS builder writes them."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline.io.progress import Progress
from input_pipeline.ov_swig.folder import SwigFolder
from input_pipeline.ov_swig.metadata import ImageDigest
from input_pipeline.ov_swig.records import Record
from input_pipeline.ov_swig.vocabulary import PAD, Vocabulary
from input_pipeline.schema import ANNOTATORS, MAX_ROLES, RATIONALES

# TFDS keeps the examples of a shard in memory while it writes it.
_BYTES, _IMAGES = 128 << 20, 8192


class Watch:
  """Shows how far a build is, and sums up the images as they pass."""

  def __init__(self, progress: Progress):
    self._progress = progress
    self._digests: dict[str, ImageDigest] = {}

  def take(self, split: str, record: Record, content: bytes) -> None:
    digest = self._digests.setdefault(split, ImageDigest())
    digest.add(record.name, hashlib.sha256(content).hexdigest())
    self._progress.advance()

  def results(self) -> dict[str, dict[str, Any]]:
    """See `ImageDigest.result`, by split."""
    return {split: d.result() for split, d in self._digests.items()}


@dataclasses.dataclass(frozen=True)
class Shard:
  """The examples of one file; TFDS calls it, here or on a Beam worker.

  Attributes:
    split: its name.
    start: position in the split of the first of `records`.
    records: what to write.
    groups: [V] group of each verb.
    words: the vocabulary.
    watch: told of every image, if not None.
  """

  split: str
  start: int
  records: list[Record]
  groups: np.ndarray
  words: Vocabulary
  watch: Watch | None

  def __call__(self) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (position in the split, features).

    Raises:
      RecordError: an image cannot be read or decoded, or is of another size
        than its record says.
    """
    for index, record in enumerate(self.records, self.start):
      content = record.read_image()
      if self.watch is not None:
        self.watch.take(self.split, record, content)
      yield index, self._example(record, content)

  def _example(self, record: Record, content: bytes) -> dict[str, Any]:
    """Features of one record; roles are padded, the image stays as it is."""
    used = len(record.nouns)
    nouns = np.full(
      (MAX_ROLES, ANNOTATORS), self.words.noun_index[PAD], np.int32
    )
    boxes = np.full((MAX_ROLES, 4), -1.0, np.float32)
    nouns[:used] = record.nouns
    boxes[:used] = record.boxes
    return {
      "image": content,
      "image_name": record.name,
      "verb": record.verb,
      "group": int(self.groups[record.verb]),
      "roles": self.words.frame_array[record.verb],
      "nouns": nouns,
      "boxes": boxes,
      "height": record.height,
      "width": record.width,
      "rationales": list(record.rationales or ("",) * len(RATIONALES)),
    }


def shards(content: SwigFolder, split: str, watch: Watch | None) -> list[Shard]:
  """The shards of a split, in order."""
  records = content.splits[split]
  groups, words = content.groups.groups, content.vocabulary
  return [
    Shard(split, start, records[start:stop], groups, words, watch)
    for start, stop in cuts(records)
  ]


def cuts(records: list[Record]) -> list[tuple[int, int]]:
  """(start, stop) of each shard: 128 MiB or 8192 images at most."""
  found, start, size = [], 0, 0
  for index, record in enumerate(records):
    more = record.path.stat().st_size
    if index > start and (size + more > _BYTES or index - start == _IMAGES):
      found.append((start, index))
      start, size = index, 0
    size += more
  return [*found, (start, len(records))] if records else []
