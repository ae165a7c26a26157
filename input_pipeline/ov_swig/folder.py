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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import (
  layout,
  record_conventions,
  split_reader,
  vocabulary,
)
from input_pipeline.ov_swig.layout import Layout
from input_pipeline.ov_swig.records import Record, RecordError
from input_pipeline.ov_swig.splits import (
  folder_groups,
  groups,
  leaks,
  split_file,
)
from input_pipeline.schema import GROUPS

SPLITS = layout.SPLITS
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
    broken: what is wrong with each image that was left out as broken.
    wrong_boxes: what is wrong with each box that was cut or dropped.
    images: which images may do what, see `split_file.image_sets`.
    fingerprint: see `fingerprint`.
  """

  layout: Layout
  vocabulary: vocabulary.Vocabulary
  groups: groups.VerbGroups
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

  def lacks(self) -> Iterator[InputError]:
    """See `whole_files.missing_images`: what a build refuses."""
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
  skip_broken: bool = False,
) -> SwigFolder:
  """Reads a folder; writes its split file where there is none.

  The verb groups of the authors' files follow from those files; else they
  are drawn.

  Args:
    folder: DIR with images_512 and SWiG_jsons.
    num_rare, num_unseen, seed: of the draw, see `splits.load_groups`.
    withhold: whether training records lose rationales that name an unseen
      verb (see `leaks`); False takes all texts as they are.
    skip_broken: whether to read every image and leave out those that are
      missing or cannot be decoded, and to cut boxes that leave their image
      and drop empty ones; False refuses a missing image and a wrong box, and
      leaves images that cannot be decoded to whoever reads them.

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
  found = split_reader.read(files, words, groups, skip_broken=skip_broken)
  lists = groups.lists(words)
  sets = split_file.image_sets(found.verbs_of, lists)
  if new:
    folder_groups.write(files, words, groups, found.verbs_of, seed=seed)
  elif groups.images and groups.images != sets:
    _log.warning(
      "%s: the records are others than those the split file was made for; "
      "its verbs hold, its counts do not",
      files.jsons / layout.SPLITS_FILE,
    )
  train = found.records["train"]
  trained = [record for record in train if _may_train(record, groups)]
  dropped, withheld = len(train) - len(trained), 0
  if withhold:
    trained, withheld = _withhold(trained, words, groups)
  _tell(files, dropped, withheld)
  _tell_broken("left out", found.broken)
  _tell_broken("cut or dropped", found.wrong_boxes)
  return SwigFolder(
    layout=files,
    vocabulary=words,
    groups=groups,
    splits=found.records | {"train": trained},
    dropped=dropped,
    withheld=withheld,
    broken=found.broken,
    wrong_boxes=found.wrong_boxes,
    images=split_file.image_sets(found.whole, lists),
    fingerprint=files.fingerprint(),
  )


def check_layout(folder: str | pathlib.Path) -> None:
  """Says in one message which pieces of a folder are missing."""
  layout.find(folder)


def fingerprint(folder: str | pathlib.Path) -> str:
  """sha256 over the JSON and index files and the images' names and sizes."""
  return layout.find(folder).fingerprint()


def _may_train(record: Record, groups: groups.VerbGroups) -> bool:
  return bool(groups.may_train(record.verb))


def _withhold(
  records: list[Record],
  words: vocabulary.Vocabulary,
  groups: groups.VerbGroups,
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


def _tell_broken(what: str, errors: Sequence[RecordError]) -> None:
  for error in errors[:_SHOWN]:
    _log.warning("%s: %s", what, error.problem)
  if len(errors) > _SHOWN:
    _log.warning("%s: ... and %d more", what, len(errors) - _SHOWN)
