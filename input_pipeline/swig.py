"""Reads and checks a folder in the layout of SWiG.

docs/own_data.md describes the layout. One record of a split's JSON:

  "img.jpg": {"verb", "height", "width", "bb": {role: [x1, y1, x2, y2]},
              "frames": [{role: noun id or ""}, x3]}

with boxes in pixels and [-1, -1, -1, -1] where a role is not grounded
(Pratt et al., Grounded Situation Recognition, ECCV 2020).
"""

import collections
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline import (
  folder_groups,
  layout,
  leaks,
  record_files,
  record_parser,
  split_file,
  splits,
  vocabulary,
)
from input_pipeline.layout import SPLITS, Layout
from input_pipeline.schema import GROUPS
from input_pipeline.swig_record import Record, RecordError

IMAGES_FOLDER, JSONS_FOLDER = layout.IMAGES_FOLDER, layout.JSONS_FOLDER
_SHOWN = 5
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SwigFolder:
  """A folder that was read and checked.

  Attributes:
    layout: its files.
    vocabulary: verbs, roles, nouns, frames.
    groups: seen, rare and unseen verbs.
    splits: records of 'train', 'dev' and 'test' in the order of the JSON;
      no training record has an unseen verb.
    dropped: how many training records of unseen verbs were left out.
    withheld: how many training records lost their rationales because those
      name an unseen verb.
    images: which images may do what, see `split_file.image_sets`.
    fingerprint: see `fingerprint`.
  """

  layout: Layout
  vocabulary: vocabulary.Vocabulary
  groups: splits.VerbGroups
  splits: Mapping[str, list[Record]]
  dropped: int
  withheld: int
  images: Mapping[str, Mapping[str, Any]]
  fingerprint: str

  @property
  def folder(self) -> pathlib.Path:
    return self.layout.folder

  @functools.cached_property
  def train_counts(self) -> np.ndarray:
    """Training images of each verb: int64 [V]."""
    verbs = [record.verb for record in self.splits["train"]]
    return np.bincount(verbs, minlength=len(self.vocabulary.verbs))

  def counts(self) -> dict[str, dict[str, int]]:
    """Number of images by split and group."""
    table = {}
    for split, records in self.splits.items():
      found = collections.Counter(
        int(self.groups.groups[record.verb]) for record in records
      )
      table[split] = {name: found[i] for i, name in enumerate(GROUPS)}
    return table


def read_folder(
  folder: str | pathlib.Path,
  *,
  num_rare: int | None = None,
  num_unseen: int | None = None,
  seed: int = 0,
  withhold: bool = True,
) -> SwigFolder:
  """Reads a folder; writes its split file where there is none.

  The verb groups of the authors' files follow from those files; else they
  are drawn.

  Args:
    folder: DIR with images_512 and SWiG_jsons.
    num_rare, num_unseen, seed: of the draw, see `splits.load_groups`.
    withhold: whether training records lose rationales that name an unseen
      verb (see `leaks`); False takes all texts as they are.

  Raises:
    InputError: anything missing, cut off or contradictory; the message names
      file, image and role.
  """
  files = layout.find(folder)
  words = vocabulary.load(folder)
  groups = folder_groups.find(files, words)
  new = groups is None
  if new:
    groups = folder_groups.make(
      files, words, num_rare=num_rare, num_unseen=num_unseen, seed=seed
    )
    unseen = leaks.unseen_names(words, groups)
    # Nouns that only unseen verbs have are no classes, where those are derived.
    words = vocabulary.load(folder, unseen=unseen)
  found, verbs_of = _read_splits(files, words)
  sets = split_file.image_sets(verbs_of, groups.lists(words))
  if new:
    folder_groups.write(files, words, groups, verbs_of, seed=seed)
  elif groups.images and groups.images != sets:
    _log.warning(
      "%s: the records are others than those the split file was made for; "
      "its verbs hold, its counts do not",
      files.jsons / layout.SPLITS_FILE,
    )
  trained = [record for record in found["train"] if _may_train(record, groups)]
  dropped = len(found["train"]) - len(trained)
  found["train"], withheld = trained, 0
  if withhold:
    found["train"], withheld = _withhold(trained, words, groups)
  _tell(files, dropped, withheld)
  return SwigFolder(
    layout=files,
    vocabulary=words,
    groups=groups,
    splits=found,
    dropped=dropped,
    withheld=withheld,
    images=sets,
    fingerprint=files.fingerprint(),
  )


def check_layout(folder: str | pathlib.Path) -> None:
  """Says in one message which pieces of a folder are missing."""
  layout.find(folder)


def fingerprint(folder: str | pathlib.Path) -> str:
  """sha256 over the JSON and index files and the images' names and sizes."""
  return layout.find(folder).fingerprint()


def verify_images(folder: SwigFolder, limit: int = _SHOWN) -> list[RecordError]:
  """Checks every image's header and size; up to `limit` problems."""
  problems: list[RecordError] = []
  for records in folder.splits.values():
    for record in records:
      try:
        record.check_image(record.path.read_bytes())
      except RecordError as error:
        problems.append(error)
      if len(problems) == limit:
        return problems
  return problems


def _read_splits(
  files: Layout, words: vocabulary.Vocabulary
) -> tuple[dict[str, list[Record]], dict[str, dict[str, str]]]:
  """Records, and verb names by image name, of all splits."""
  there = files.image_sizes()
  records, verbs_of = {}, {}
  # One JSON at a time: parsed, a split takes a tenth of the memory.
  for split in SPLITS:
    rows = record_files.read(files, split, words)
    record_files.check_disjoint(rows, split, verbs_of)
    record_files.check_images(files, split, rows, there)
    verbs_of[split] = {n: row.entry["verb"] for n, row in rows.items()}
    records[split] = [
      record_parser.parse(
        row.entry, row.place, words, boxes_required=split == "train"
      )
      for row in rows.values()
    ]
  return records, verbs_of


def _may_train(record: Record, groups: splits.VerbGroups) -> bool:
  return bool(groups.may_train(record.verb))


def _withhold(
  records: list[Record],
  words: vocabulary.Vocabulary,
  groups: splits.VerbGroups,
) -> tuple[list[Record], int]:
  """Takes rationales away that name an unseen verb, all four of a record."""
  finder = leaks.NameFinder(leaks.unseen_names(words, groups))
  kept, withheld = [], 0
  for record in records:
    if any(finder.find(text) for text in record.rationales or ()):
      record = dataclasses.replace(record, rationales=None)
      withheld += 1
    kept.append(record)
  return kept, withheld


def _tell(files: Layout, dropped: int, withheld: int) -> None:
  if dropped:
    _log.info(
      "%s: left out %d training images of unseen verbs", files.folder, dropped
    )
  if withheld:
    _log.warning(
      "%s: withheld the rationales of %d training images, which name unseen "
      "verbs; templates take their place",
      files.folder,
      withheld,
    )
