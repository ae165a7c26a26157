"""What a prepared dataset says of itself: names, splits, numbers, hashes.

The examples of a folder, shard by shard, as the TFDS builder writes them.
"""

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


def metadata(content: SwigFolder) -> dict[str, Any]:
  """All about a folder that is no record, as plain JSON.

  Returns:
    'vocabulary': every field of `Vocabulary`, such as 'nouns' and their
    'noun_glosses' by class number; 'groups': verbs by group, hash, method;
    'images': which images may train, select, be reported; 'statistics' by
    split; 'checksums': sha256 of the files it was made from; 'source',
    'fingerprint'; 'left_out' and 'withheld' training images and rationales;
    'broken': file, image and problem of each image left out as broken;
    'wrong_boxes': the same, role, and whether it was dropped ('lost'), of
    each box that was cut or dropped.
  """
  words, groups = content.vocabulary, content.groups
  return {
    "source": content.layout.source,
    "fingerprint": content.fingerprint,
    "vocabulary": dataclasses.asdict(words),
    "groups": {
      **groups.lists(words),
      "sha256": groups.sha256,
      "method": groups.method,
    },
    "images": content.images,
    "statistics": {
      split: statistics(records, groups.groups, words)
      for split, records in content.splits.items()
    },
    "checksums": content.layout.checksums(),
    "left_out": content.dropped,
    "withheld": content.withheld,
    "broken": [_told(error) for error in content.broken],
    "wrong_boxes": [
      _told(error) | {"lost": error.lost} for error in content.wrong_boxes
    ],
  }


def _told(error: RecordError) -> dict[str, Any]:
  where = {"file": error.file, "image": error.image, "role": error.role}
  return where | {"problem": error.problem}


def statistics(
  records: list[Record], groups: np.ndarray, words: Vocabulary
) -> dict[str, Any]:
  """Numbers of one split.

  Args:
    records: its images.
    groups: [V] group of each verb.
    words: the vocabulary.

  Returns:
    images (in all, by group, fewest and most of a verb that has any), verbs
    that have any, roles, the share of them with a box, the shares of
    annotators' nouns that are blank and out of the vocabulary, images with
    rationales; shares are of 1 and None where nothing is counted.
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
  return np.concatenate([np.empty((0, width), dtype), *parts])


def _share(mask: np.ndarray) -> float | None:
  return float(mask.mean()) if mask.size else None


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
