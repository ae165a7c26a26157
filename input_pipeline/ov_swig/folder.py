"""Reads and checks a folder in the layout of SWiG.

docs/own_data.md describes the layout. One record of a split's JSON:

  "img.jpg": {"verb", "height", "width", "bb": {role: [x1, y1, x2, y2]},
              "frames": [{role: noun id or ""}, x3]}

with boxes in pixels and [-1, -1, -1, -1] where a role is not grounded
(Pratt et al., Grounded Situation Recognition, ECCV 2020). Broken images can be
left out, if that is allowed.
"""

import collections
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import RecordError
from input_pipeline.io.progress import each
from input_pipeline.ov_swig import (
  layout,
  record_conventions,
  record_files,
  vocabulary,
)
from input_pipeline.ov_swig import records as records_lib
from input_pipeline.ov_swig.layout import SPLITS, Layout
from input_pipeline.ov_swig.record_files import Row, Rows
from input_pipeline.ov_swig.records import Record
from input_pipeline.ov_swig.splits import folder_groups, leaks
from input_pipeline.ov_swig.splits import groups as groups_lib
from input_pipeline.ov_swig.splits.groups import VerbGroups
from input_pipeline.ov_swig.vocabulary import Vocabulary
from input_pipeline.schema import GROUPS


def take_out(rows: Rows, split: str) -> list[RecordError]:
  """Removes records whose image cannot be read or decoded from a split.

  An image of another size than in its record stays: its boxes were drawn on
  another image, which is not a fault of one file.

  Args:
    rows: records by image name; the function deletes from it.
    split: its name.

  Returns:
    The fault of each image that was removed, in the order of `rows`.

  Raises:
    InputError: no image of the split would be left.
  """
  names = list(rows)
  errors = each(
    names,
    lambda name: _problem(rows[name]),
    f"look for broken images, {split}",
  )
  pairs = zip(names, errors, strict=True)
  faults = {name: error for name, error in pairs if error is not None}
  if names and len(faults) == len(names):
    raise InputError(
      f"all {len(names)} images of the split {split!r} are broken; the first: "
      f"{faults[names[0]].problem}",
      "copy or download the image folder again",
    )
  for name in faults:
    del rows[name]
  return list(faults.values())


def _problem(row: Row) -> RecordError | None:
  try:
    row.place.read_image(None)
  except RecordError as error:
    return error
  return None


@dataclasses.dataclass(frozen=True)
class SplitRecords:
  """The records of a folder.

  Attributes:
    records: by split, in the order of its files.
    verbs_of: split -> image name -> verb name, broken images included.
    broken: the fault of each image that was left out.
    wrong_boxes: the fault of each box that was clipped or dropped.
  """

  records: dict[str, list[Record]]
  verbs_of: dict[str, dict[str, str]]
  broken: tuple[RecordError, ...]
  wrong_boxes: tuple[RecordError, ...]

  @property
  def whole(self) -> dict[str, dict[str, str]]:
    """`verbs_of` without broken images."""
    gone = {error.image for error in self.broken}
    return {
      split: {name: verb for name, verb in verbs.items() if name not in gone}
      for split, verbs in self.verbs_of.items()
    }


def read(
  files: Layout,
  words: Vocabulary,
  groups: VerbGroups,
  *,
  skip_broken: bool,
) -> SplitRecords:
  """Reads all splits.

  Args:
    files: the folder.
    words: its vocabulary.
    groups: the groups of its verbs.
    skip_broken: whether to read every image and leave out those that are
      missing or cannot be decoded, and to clip or drop wrong boxes.

  Raises:
    InputError: something is missing, truncated or contradictory; the message
      names file, image and role. Before any image is read, also files whose
      boxes or nouns follow another convention.
  """
  unseen = set(leaks.unseen_names(words, groups))
  if skip_broken:  # Check the files first, since reading images takes long.
    for split in SPLITS:
      rows = record_files.read(files, split, words)
      _check_files(files, split, rows, words, unseen)
  there = files.image_sizes()
  records, verbs_of = {}, {}
  broken: list[RecordError] = []
  wrong_boxes: list[RecordError] = []
  report = _collect_boxes(wrong_boxes) if skip_broken else record_files.stop
  # One JSON at a time: a split of records takes a tenth of its JSON's memory.
  for split in SPLITS:
    rows = record_files.read(files, split, words)
    record_files.check_disjoint(rows, files, verbs_of)
    verbs_of[split] = _verbs(rows)
    if skip_broken:
      broken += take_out(rows, split)
    else:
      record_files.check_images(files, rows, there)
      _check_files(files, split, rows, words, unseen)
    records[split] = [
      records_lib.parse(
        row.entry,
        row.place,
        words,
        boxes_required=split == "train",
        report=report,
      )
      for row in rows.values()
    ]
  return SplitRecords(records, verbs_of, tuple(broken), tuple(wrong_boxes))


def _check_files(
  files: Layout,
  split: str,
  rows: record_files.Rows,
  words: Vocabulary,
  unseen: Collection[str],
) -> None:
  """Raises InputError if boxes or nouns follow another convention."""
  for _, error in record_conventions.wrong_boxes(rows):
    raise error
  nouns = record_conventions.nouns(rows, words, unseen)
  error = record_conventions.wrong_nouns(files, split, nouns, words)
  if error is not None:
    raise error
  for path in record_conventions.corner_files(rows):
    _log.warning("%s: %s", path, record_conventions.CORNER)
  if other := record_conventions.differing(nouns.unlisted, words):
    _log.warning(
      "%s: %s",
      files.jsons / f"{split}.json",
      record_conventions.told_differing(other),
    )


def _verbs(rows: Mapping[str, record_files.Row]) -> dict[str, str]:
  return {name: row.entry["verb"] for name, row in rows.items()}


def _collect_boxes(errors: list[RecordError]) -> Callable[[RecordError], None]:
  """A function that collects errors of a role's box and raises others."""

  def report(error: RecordError) -> None:
    if error.kind != "boxes" or error.role is None:
      raise error
    errors.append(error)

  return report


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
    broken: the fault of each image that was left out as broken.
    wrong_boxes: the fault of each box that was clipped or dropped.
    images: the images that may train, select and be reported, see
      `groups.image_sets`.
    fingerprint: see `fingerprint`.
  """

  layout: Layout
  vocabulary: vocabulary.Vocabulary
  groups: groups_lib.VerbGroups
  splits: Mapping[str, list[Record]]
  dropped: int
  withheld: int
  broken: tuple[RecordError, ...]
  wrong_boxes: tuple[RecordError, ...]
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

  def missing_parts(self) -> Iterator[InputError]:
    """What a build refuses, see `record_conventions.missing_images`."""
    verbs = self.vocabulary.verbs
    verbs_of = {
      split: {record.name: verbs[record.verb] for record in records}
      for split, records in self.splits.items()
    }
    yield from record_conventions.missing_images(
      self.layout, verbs_of, self.vocabulary, self.groups
    )

  def counts(self) -> dict[str, dict[str, int]]:
    """Number of images by split and group."""
    table = {}
    for split, records in self.splits.items():
      images = collections.Counter(
        int(self.groups.groups[record.verb]) for record in records
      )
      table[split] = {name: images[i] for i, name in enumerate(GROUPS)}
    return table


def read_folder(
  folder: str | pathlib.Path,
  *,
  num_rare: int | None = None,
  num_unseen: int | None = None,
  seed: int = 0,
  withhold: bool = True,
  skip_broken: bool = False,
) -> SwigFolder:
  """Reads a folder; writes its split file if there is none.

  The authors' files fix the verb groups; otherwise they are drawn.

  Args:
    folder: DIR with images_512 and SWiG_jsons.
    num_rare, num_unseen, seed: settings of the draw, see
      `groups.load_groups`.
    withhold: whether training records lose rationales that name an unseen
      verb (see `leaks`); False keeps all texts.
    skip_broken: whether to read every image and leave out those that are
      missing or cannot be decoded, to clip boxes that leave their image and
      to drop empty ones. False refuses a missing image and a wrong box; an
      image that cannot be decoded fails when it is read.

  Raises:
    InputError: something is missing, truncated or contradictory; the message
      names file, image and role.
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
    # Derived noun classes exclude nouns that only unseen verbs have.
    words = vocabulary.load(folder, unseen=unseen)
  content = read(files, words, groups, skip_broken=skip_broken)
  lists = groups.lists(words)
  sets = groups_lib.image_sets(content.verbs_of, lists)
  if new:
    folder_groups.write(files, words, groups, content.verbs_of, seed=seed)
  elif groups.images and groups.images != sets:
    _log.warning(
      "%s: the split file was made for other records; its verbs are valid, its "
      "counts are not",
      files.jsons / layout.SPLITS_FILE,
    )
  train = content.records["train"]
  trained = [record for record in train if _may_train(record, groups)]
  dropped, withheld = len(train) - len(trained), 0
  if withhold:
    trained, withheld = _withhold(trained, words, groups)
  _log_left_out(files, dropped, withheld)
  _log_faults("left out", content.broken)
  _log_faults("cut or dropped", content.wrong_boxes)
  return SwigFolder(
    layout=files,
    vocabulary=words,
    groups=groups,
    splits=content.records | {"train": trained},
    dropped=dropped,
    withheld=withheld,
    broken=content.broken,
    wrong_boxes=content.wrong_boxes,
    images=groups_lib.image_sets(content.whole, lists),
    fingerprint=files.fingerprint(),
  )


def check_layout(folder: str | pathlib.Path) -> None:
  """Raises InputError that names all missing parts of a folder."""
  layout.find(folder)


def fingerprint(folder: str | pathlib.Path) -> str:
  """sha256 over the JSON and index files and the images' names and sizes."""
  return layout.find(folder).fingerprint()


def _may_train(record: Record, groups: groups_lib.VerbGroups) -> bool:
  return bool(groups.may_train(record.verb))


def _withhold(
  records: list[Record],
  words: vocabulary.Vocabulary,
  groups: groups_lib.VerbGroups,
) -> tuple[list[Record], int]:
  """Removes all four rationales of a record if one names an unseen verb."""
  finder = leaks.NameFinder(leaks.unseen_names(words, groups))
  kept, withheld = [], 0
  for record in records:
    if any(finder.find(text) for text in record.rationales or ()):
      record = dataclasses.replace(record, rationales=None)
      withheld += 1
    kept.append(record)
  return kept, withheld


def _log_left_out(files: Layout, dropped: int, withheld: int) -> None:
  if dropped:
    _log.info(
      "%s: left out %d training images of unseen verbs", files.folder, dropped
    )
  if withheld:
    _log.warning(
      "%s: withheld the rationales of %d training images, which name unseen "
      "verbs; templates replace them",
      files.folder,
      withheld,
    )


def _log_faults(what: str, errors: Sequence[RecordError]) -> None:
  for error in errors[:_SHOWN]:
    _log.warning("%s: %s", what, error.problem)
  if len(errors) > _SHOWN:
    _log.warning("%s: ... and %d more", what, len(errors) - _SHOWN)
