"""The examples and the metadata that the TFDS builder writes."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline.io.builds import Watch, cuts
from input_pipeline.io.findings import RecordError
from input_pipeline.ov_swig.folder import SwigFolder
from input_pipeline.ov_swig.records import Record
from input_pipeline.ov_swig.vocabulary import BLANK, OOV, PAD, Vocabulary
from input_pipeline.schema import ANNOTATORS, GROUPS, MAX_ROLES, RATIONALES


def metadata(source: SwigFolder) -> dict[str, Any]:
  """Everything about a folder except its records, as plain JSON.

  Returns:
    'vocabulary': every field of `Vocabulary`, such as 'nouns' and their
    'noun_glosses' by class number; 'groups': verbs by group, hash, method;
    'images': which images may train, select, be reported; 'statistics' by
    split; 'checksums': sha256 of the source files; 'source', 'fingerprint';
    'left_out' and 'withheld': numbers of training images left out and of
    rationales withheld; 'broken': file, image and problem of each image left
    out as broken; 'wrong_boxes': the same with the role and whether the box
    was dropped ('lost'), of each box that was clipped or dropped.
  """
  words, groups = source.vocabulary, source.groups
  return {
    "source": source.layout.source,
    "fingerprint": source.fingerprint,
    "vocabulary": dataclasses.asdict(words),
    "groups": {
      **groups.lists(words),
      "sha256": groups.sha256,
      "method": groups.method,
    },
    "images": source.images,
    "statistics": {
      split: statistics(records, groups.groups, words)
      for split, records in source.splits.items()
    },
    "checksums": source.layout.checksums(),
    "left_out": source.dropped,
    "withheld": source.withheld,
    "broken": [_as_row(error) for error in source.broken],
    "wrong_boxes": [
      _as_row(error) | {"lost": error.lost} for error in source.wrong_boxes
    ],
  }


def _as_row(error: RecordError) -> dict[str, Any]:
  where = {"file": error.file, "image": error.image, "role": error.role}
  return where | {"problem": error.problem}


def statistics(
  records: list[Record], groups: np.ndarray, words: Vocabulary
) -> dict[str, Any]:
  """Statistics of one split.

  Args:
    records: its images.
    groups: int [V], the group of each verb.
    words: the vocabulary.

  Returns:
    Number of images (in all, by group, fewest and most of a verb with any),
    of verbs with images, of roles; share of roles with a box; shares of
    annotators' nouns that are blank and out of the vocabulary; number of
    images with rationales. Shares are 0 to 1, None if nothing is counted.
  """
  verbs = np.array([record.verb for record in records], int)
  of_verb = np.bincount(verbs, minlength=len(words.verbs))
  nouns = _joined([record.nouns for record in records], np.int32, 3)
  boxes = _joined([record.boxes for record in records], np.float32, 4)
  in_group = np.bincount(groups[verbs], minlength=len(GROUPS))
  some = of_verb[of_verb > 0]
  return {
    "images": len(records),
    "by_group": dict(zip(GROUPS, in_group.tolist(), strict=True)),
    "verbs": len(some),
    "images_per_verb": [int(some.min()), int(some.max())] if len(some) else [],
    "roles": len(boxes),
    "grounded": _share(boxes[:, 0] >= 0),
    "blank": _share(nouns == words.noun_index[BLANK]),
    "out_of_vocabulary": _share(nouns == words.noun_index[OOV]),
    "with_rationales": sum(r.rationales is not None for r in records),
  }


def _joined(parts: list[np.ndarray], dtype: type, width: int) -> np.ndarray:
  """Arrays [R, width] joined to [sum of R, width], also if there is none."""
  return np.concatenate([np.empty((0, width), dtype), *parts])


def _share(mask: np.ndarray) -> float | None:
  """Share of True in a bool array of any shape; None if it is empty."""
  return float(mask.mean()) if mask.size else None


@dataclasses.dataclass(frozen=True)
class Shard:
  """The examples of one file; TFDS calls it, here or on a Beam worker.

  Attributes:
    split: its name.
    start: position in the split of the first of `records`.
    records: what to write.
    groups: int [V], the group of each verb.
    words: the vocabulary.
    watch: informed of every image, if not None.
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
      RecordError: an image cannot be read or decoded, or has another size
        than in its record.
    """
    for index, record in enumerate(self.records, self.start):
      content = record.read_image()
      if self.watch is not None:
        self.watch.take(self.split, record, content)
      yield index, self._example(record, content)

  def _example(self, record: Record, content: bytes) -> dict[str, Any]:
    """Features of one record; roles are padded, the image is unchanged."""
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


def shards(source: SwigFolder, split: str, watch: Watch | None) -> list[Shard]:
  """The shards of a split, in order."""
  records = source.splits[split]
  groups, words = source.groups.groups, source.vocabulary
  return [
    Shard(split, start, records[start:stop], groups, words, watch)
    for start, stop in cuts(records)
  ]
