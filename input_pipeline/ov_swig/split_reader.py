"""Reads the records of a folder, split by split; takes out what is broken."""

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping

from input_pipeline.ov_swig import (
  broken_images,
  record_conventions,
  record_files,
  record_parser,
)
from input_pipeline.ov_swig.layout import SPLITS, Layout
from input_pipeline.ov_swig.records import Record, RecordError
from input_pipeline.ov_swig.splits import leaks
from input_pipeline.ov_swig.splits.groups import VerbGroups
from input_pipeline.ov_swig.vocabulary import Vocabulary

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SplitRecords:
  """The records of a folder.

  Attributes:
    records: by split, in the order of its files.
    verbs_of: split -> image name -> verb name, broken images included.
    broken: what is wrong with each image that was left out.
    wrong_boxes: what is wrong with each box that was cut or dropped.
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
    groups: of its verbs.
    skip_broken: whether to read every image and leave out those that are
      missing or cannot be decoded, and to cut or drop wrong boxes.

  Raises:
    InputError: anything missing, cut off or contradictory; the message names
      file, image and role. So are files whose boxes or nouns are of another
      kind, before any image is read.
  """
  unseen = set(leaks.unseen_names(words, groups))
  if skip_broken:  # Reading images takes long: wrong files come first.
    for split in SPLITS:
      rows = record_files.read(files, split, words)
      _check_files(files, split, rows, words, unseen)
  there = files.image_sizes()
  records, verbs_of = {}, {}
  broken: list[RecordError] = []
  wrong_boxes: list[RecordError] = []
  report = _collect_boxes(wrong_boxes) if skip_broken else record_files.stop
  # One JSON at a time: parsed, a split takes a tenth of the memory.
  for split in SPLITS:
    rows = record_files.read(files, split, words)
    record_files.check_disjoint(rows, files, verbs_of)
    verbs_of[split] = _verbs(rows)
    if skip_broken:
      broken += broken_images.take_out(rows, split)
    else:
      record_files.check_images(files, rows, there)
      _check_files(files, split, rows, words, unseen)
    records[split] = [
      record_parser.parse(
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
  """Raises `InputError` if boxes or nouns of a split are of another kind."""
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


def _collect_boxes(found: list[RecordError]) -> Callable[[RecordError], None]:
  """Collects what is wrong with a role's box; raises all else."""

  def report(error: RecordError) -> None:
    if error.kind != "boxes" or error.role is None:
      raise error
    found.append(error)

  return report
