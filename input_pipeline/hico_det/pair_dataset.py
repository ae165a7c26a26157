"""HICO-DET for caches and students: splits with pairs.

`train` and `dev` are the training images, without what zero-shot training may
not see; a hash of their names chooses the share of `dev`. `test` has the test
images.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from input_pipeline import schema
from input_pipeline.hico_det import pair_columns, vocabulary
from input_pipeline.hico_det.builder import HicoImages
from input_pipeline.hico_det.detectors import detections
from input_pipeline.hico_det.detectors.detections import Detections
from input_pipeline.hico_det.image_split import HicoSplit
from input_pipeline.hico_det.pair_columns import Selection
from input_pipeline.hico_det.records import Record
from input_pipeline.hico_det.splits import ZeroShot
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import vocabulary as vocabulary_lib

SPLITS = ("train", "dev", "test")
_log = logging.getLogger(__name__)
_EVERYTHING = Selection(10**6, 10**6, 0.0)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What the splits depend on besides the folder.

  Attributes:
    dropping: see `splits.without_unseen`.
    dev_share: share of the training images that is `dev`.
    slots: largest number of pairs of a training image; evaluation has a
      multiple of it.
    selection: which detections make pairs.
    train_detections, test_detections: files; "" means the annotated boxes.
  """

  dropping: str
  dev_share: float
  slots: int
  selection: Selection
  train_detections: str = ""
  test_detections: str = ""


@dataclasses.dataclass(frozen=True)
class Groups:
  """Group of each interaction, an index into `schema.GROUPS`."""

  groups: np.ndarray
  sha256: str


class PairSplit:
  """One split: pairs as columns, images by index; a `dataset.Split`.

  Args:
    split: records and images.
    columns: of `schema.PAIR_ANNOTATIONS`.
  """

  def __init__(
    self, name: str, split: HicoSplit, columns: Mapping[str, np.ndarray]
  ):
    self.name, self._split = name, split
    self._columns = dict(columns)

  def __len__(self) -> int:
    return len(self._split)

  @property
  def num_examples(self) -> int:
    return len(self)

  @property
  def names(self) -> tuple[str, ...]:
    """File name of every image, in index order."""
    return self._split.names

  @property
  def records(self) -> tuple[Record, ...]:
    """The annotations in pixels; for `train` and `dev` only the seen ones."""
    return self._split.records

  def annotations(self) -> dict[str, np.ndarray]:
    """The columns of `schema.PAIR_ANNOTATIONS`, one row per image."""
    return dict(self._columns)

  def image(self, index: int) -> Image.Image:
    return self._split.image(index)

  def letterboxed_sizes(
    self, indices: Sequence[int] | np.ndarray, sizes: Sequence[int]
  ) -> dict[int, np.ndarray]:
    """Images on square canvases: uint8 [n, s, s, 3] by s."""
    return self._split.letterboxed_sizes(indices, sizes)

  def rationales(self, index: int) -> None:
    """None: records have no texts of their own."""
    del index


class PairDataset:
  """A dataset on disk with its zero-shot split and detections.

  A `dataset.Dataset` whose classes are the interactions.

  Args:
    hico: the images and annotations.
    zero_shot: which interactions are unseen.
    settings: the other settings of the splits.
  """

  def __init__(self, hico: HicoImages, zero_shot: ZeroShot, settings: Settings):
    self._hico, self.zero_shot, self.settings = hico, zero_shot, settings
    self.split = functools.cache(self._read_split)
    self._hico_split = functools.cache(hico.split)
    self.detections = functools.cache(self._read_detections)

  @property
  def name(self) -> str:
    return f"{self._hico.name}, split {self.zero_shot.name}"

  @property
  def broken(self) -> tuple[str, ...]:
    """Names of the images that were left out."""
    return self._hico.broken

  @property
  def words(self):
    """Verbs, objects and interactions."""
    return self._hico.words

  @functools.cached_property
  def vocabulary(self) -> vocabulary_lib.Vocabulary:
    """The same for teachers, see `terms`."""
    return vocabulary.as_vocabulary(self.words)

  @functools.cached_property
  def groups(self) -> Groups:
    """Unseen interactions of the split; the others are rare or seen."""
    rare = np.where(self.words.rare, schema.GROUPS.index("rare"), 0)
    groups = np.where(
      self.zero_shot.unseen, schema.GROUPS.index("unseen"), rare
    )
    return Groups(groups.astype(np.int32), self.zero_shot.sha256)

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 over all of the dataset's content."""
    settings = dataclasses.asdict(self.settings)
    for key in ("train_detections", "test_detections"):
      settings[key] = _digest(settings[key])
    content = [
      *(pair_columns.VERSION, self._hico.fingerprint, settings),
      *(self._hico.name, self.zero_shot.sha256),
    ]
    return hashlib.sha256(
      json.dumps(content, sort_keys=True).encode()
    ).hexdigest()

  def detector(self, split: str) -> str:
    """Name of the detector of a split's boxes, shown with results."""
    path = self._detections_file(split)
    return self.detections(split).detector if path else detections.ORACLE

  def _detections_file(self, split: str) -> str:
    settings = self.settings
    is_test = split == "test"
    return settings.test_detections if is_test else settings.train_detections

  def _read_detections(self, split: str) -> Detections:
    path = self._detections_file(split)
    images = self._hico_split("test" if split == "test" else "train")
    detected = detections.read(path, self.words, images.names)
    for note in detections.compare(detected, images.records, self.words, path):
      _log.warning("%s", note)
    return detected

  def _read_split(self, name: str) -> PairSplit:
    if name not in SPLITS:
      raise InputError(
        f"there is no split {name!r}", f"choose one of {list(SPLITS)}"
      )
    images = self._images(name)
    pairs, labels = [], []
    person, slots = self.words.person, self.settings.slots
    # Dev and train share a file of detections: read it once.
    source = "test" if name == "test" else "train"
    is_detected = bool(self._detections_file(name))
    detected = self.detections(source) if is_detected else None
    oracle = detections.oracle(images.records)
    # In training the slots limit the pairs of an image anyway.
    chosen = _EVERYTHING if name == "train" else self.settings.selection
    for record in images.records:
      annotated = pair_columns.pair_up(
        oracle.images[record.name], person, chosen
      )
      there = None
      if detected is not None:
        there = pair_columns.pair_up(
          detected.images[record.name], person, self.settings.selection
        )
      if name == "train":
        pair, label = pair_columns.training_pairs(
          record, annotated, there, slots
        )
      else:
        pair = annotated if there is None else there
        label = pair_columns.labels_of(pair, record)
      pairs.append(pair)
      labels.append(label)
    columns = pair_columns.columns(images.records, pairs, labels, slots)
    return PairSplit(name, images, columns)

  def _images(self, name: str) -> HicoSplit:
    if name == "test":
      return self._hico_split("test")
    seen = self._hico_split("train").seen_only(
      self.zero_shot, self.settings.dropping
    )
    share = self.settings.dev_share
    is_dev = np.array([_place(x) < share for x in seen.names], bool)
    kept = np.flatnonzero(is_dev if name == "dev" else ~is_dev)
    if not len(kept):
      raise InputError(
        f"no image is left for {name!r}: interactions.dev_share={share} of "
        f"{len(seen)} training images",
        "choose another share; dev selects the checkpoint and needs images",
      )
    return dataclasses.replace(
      seen,
      records=tuple(seen.records[i] for i in kept),
      places=seen.places[kept],
    )


def _place(name: str) -> float:
  """A hash of an image's name, between 0 and 1."""
  digest = hashlib.sha256(name.encode()).digest()
  return int.from_bytes(digest[:8], "big") / 2**64


def _digest(path: str) -> str:
  """sha256 of a file; "" if there is none."""
  if not path:
    return ""
  try:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
  except OSError as error:
    raise InputError(
      f"detections {path} cannot be read: {error.strerror}",
      "name a file of the form of docs/hico_det.md, or none for the "
      "annotated boxes",
    ) from error
