"""What every dataset offers: the protocols that the rest reads it by.

The cache's precompute, the writers of rationales, the stages and the report
know a dataset by these alone; `ov_swig/builder.SwigDataset` and
`hico_det/pair_dataset.PairDataset` are the two there are. A task may read more
of its own dataset: which objects there are, which boxes a detector gave.

Letters as in `schema`: n images of a split, V classes (verbs of situations,
or interactions).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from input_pipeline.ov_swig.vocabulary import Vocabulary


class Split(Protocol):
  """One split: annotations as columns, images by index 0..n-1.

  All methods may be called from several threads.
  """

  @property
  def name(self) -> str:
    """'train', 'dev' or 'test'."""
    ...

  def __len__(self) -> int:
    """n."""
    ...

  @property
  def num_examples(self) -> int:
    """n, as `stream.Source` has it."""
    ...

  @property
  def names(self) -> tuple[str, ...]:
    """File name of every image, in index order; no two are alike."""
    ...

  def annotations(self) -> Mapping[str, np.ndarray]:
    """All annotations, n rows a column.

    Returns:
      The keys of `schema.ANNOTATIONS` or of `schema.PAIR_ANNOTATIONS`, with
      the dtypes and axes given there and n for B.
    """
    ...

  def image(self, index: int) -> Image.Image:
    """The original image, RGB.

    Raises:
      InputError: it cannot be decoded; the message names it.
    """
    ...

  def letterboxed_sizes(
    self, indices: Sequence[int] | np.ndarray, sizes: Sequence[int]
  ) -> dict[int, np.ndarray]:
    """Images on square canvases, each decoded once.

    Args:
      indices: m positions in the split, in any order, repeats allowed.
      sizes: sides s of the canvases, pixels.

    Returns:
      uint8 [m, s, s, 3] by s.

    Raises:
      InputError: an image cannot be decoded; the message names it.
    """
    ...

  def rationales(self, index: int) -> tuple[str, ...] | None:
    """The four texts that the dataset itself has of an image.

    They are in the order of `schema.RATIONALES`; None where it has none.
    """
    ...


class Groups(Protocol):
  """Which classes are seen, rare and unseen."""

  @property
  def groups(self) -> np.ndarray:
    """int32 [V], an index into `schema.GROUPS`."""
    ...

  @property
  def sha256(self) -> str:
    """Of the groups, in hexadecimal; part of a cache's plan."""
    ...


class Dataset(Protocol):
  """A dataset on disk, with its vocabulary and class groups."""

  @property
  def name(self) -> str:
    """For people: tables and reports show it."""
    ...

  @property
  def fingerprint(self) -> str:
    """sha256 of all that can be read here; part of a cache's plan."""
    ...

  @property
  def vocabulary(self) -> Vocabulary:
    """What classes, roles and nouns are called; V is len(verbs)."""
    ...

  @property
  def groups(self) -> Groups:
    """Group of each of the V classes."""
    ...

  @property
  def broken(self) -> tuple[str, ...]:
    """Names of the images that were left out because they are broken."""
    ...

  def split(self, name: str) -> Split:
    """Random access to 'train', 'dev' or 'test'.

    Raises:
      InputError: there is no such split, or it cannot be read.
    """
    ...
