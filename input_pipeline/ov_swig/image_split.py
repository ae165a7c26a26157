"""Random access to one split of a prepared dataset: labels and pixels."""

import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from input_pipeline import schema
from input_pipeline.geometry import Letterbox, letterbox_image
from input_pipeline.io import images
from input_pipeline.io.errors import InputError

_CHUNK = 128  # records in memory at a time while the labels are read


class Rows(Protocol):
  """The source of an `ImageSplit`, such as a TFDS data source."""

  def __len__(self) -> int: ...

  def __getitems__(
    self, keys: Sequence[int]
  ) -> Sequence[Mapping[str, Any]]: ...


class ImageSplit:
  """A `dataset.Split`: annotations as columns, images by index.

  As a source for `stream` it gives annotations only; `stream.image_batches`
  adds pixels. All methods may be called from several threads.

  Args:
    name: 'train', 'dev' or 'test'.
    rows: examples with the features of `builder.OvSwig`, the image as bytes.
    pad_noun: noun class of padded roles, C - 1.
    location: where the rows are stored, for messages.
  """

  def __init__(
    self, name: str, rows: Rows, pad_noun: int, location: pathlib.Path
  ):
    self.name = name
    self._rows = rows
    self._pad_noun = pad_noun
    self._location = location

  def __len__(self) -> int:
    return len(self._rows)

  @property
  def num_examples(self) -> int:
    return len(self)

  @property
  def names(self) -> tuple[str, ...]:
    """File name of every image, in index order."""
    return self._labels[0]

  def annotations(self) -> dict[str, np.ndarray]:
    """All annotations: the columns of `schema.ANNOTATIONS`, n rows each."""
    return dict(self._labels[1])

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Annotations of some examples, without `example_mask`."""
    columns = self._labels[1].items()
    return {k: v[indices] for k, v in columns if k != schema.EXAMPLE_MASK}

  def image(self, index: int) -> Image.Image:
    """The original image, RGB; InputError names a broken one."""
    return self._decode(self._fetch([index])[0])

  def letterboxed(
    self, indices: Sequence[int] | np.ndarray, size: int
  ) -> np.ndarray:
    """Images on the square canvas: uint8 [n, size, size, 3]."""
    return self.letterboxed_sizes(indices, (size,))[size]

  def letterboxed_sizes(
    self, indices: Sequence[int] | np.ndarray, sizes: Sequence[int]
  ) -> dict[int, np.ndarray]:
    """`letterboxed` at several sizes: uint8 [n, s, s, 3] by s.

    Each image is decoded once.
    """
    canvas = {s: np.empty((len(indices), s, s, 3), np.uint8) for s in sizes}
    for row, example in enumerate(self._fetch(indices)):
      image = self._decode(example)
      for size, pixels in canvas.items():
        pixels[row] = letterbox_image(image, size)
    return canvas

  def rationales(self, index: int) -> tuple[str, ...] | None:
    """The record's own texts in the order of `schema.RATIONALES`, or None."""
    return self._labels[2].get(int(index))

  @functools.cached_property
  def _labels(
    self,
  ) -> tuple[tuple[str, ...], dict[str, np.ndarray], dict[int, tuple]]:
    """Names, columns and rationales, from one pass over the split."""
    columns = _empty_columns(len(self))
    names, rationales = [], {}
    for index, example in enumerate(self._examples()):
      names.append(example["image_name"].decode())
      texts = tuple(text.decode() for text in example["rationales"])
      if any(texts):
        rationales[index] = texts
      _fill(columns, index, example)
    self._mask(columns)
    for column in columns.values():
      column.setflags(write=False)
    return tuple(names), columns, rationales

  def _mask(self, columns: dict[str, np.ndarray]) -> None:
    """Fills the columns that follow from others, in place."""
    columns[schema.INDEX][:] = np.arange(len(self))
    columns[schema.EXAMPLE_MASK][:] = True
    columns[schema.ROLE_MASK][:] = columns[schema.ROLES] >= 0
    columns[schema.BOX_MASK][:] = columns[schema.BOXES][..., 2] >= 0
    columns[schema.NOUNS][~columns[schema.ROLE_MASK]] = self._pad_noun

  def _examples(self) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(self), _CHUNK):
      yield from self._fetch(range(start, min(start + _CHUNK, len(self))))

  def _fetch(
    self, indices: Sequence[int] | np.ndarray
  ) -> Sequence[Mapping[str, Any]]:
    try:
      return self._rows.__getitems__([int(index) for index in indices])
    except Exception as error:  # array_record's errors have no common type.
      raise InputError(
        f"{self._location}: split {self.name!r} cannot be read: {error}",
        "delete that folder; it is prepared again from the images",
      ) from error

  @staticmethod
  def _decode(example: Mapping[str, Any]) -> Image.Image:
    return images.decode(example["image"], example["image_name"].decode())


def _empty_columns(num_examples: int) -> dict[str, np.ndarray]:
  """Zeros for the columns of `schema.ANNOTATIONS`, n rows each."""
  axes = {
    "B": num_examples,
    "R": schema.MAX_ROLES,
    "A": schema.ANNOTATORS,
  }
  return {
    name: np.zeros(
      [axes[a] if a in axes else int(a) for a in key.axes.split()], key.dtype
    )
    for name, key in schema.ANNOTATIONS.items()
  }


def _fill(
  columns: dict[str, np.ndarray], index: int, example: Mapping[str, Any]
) -> None:
  """Fills row `index` with an example's annotations."""
  height, width = int(example["height"]), int(example["width"])
  boxes = Letterbox(height, width).boxes_to_canvas(example["boxes"])
  columns[schema.BOXES][index] = boxes
  columns[schema.IMAGE_SIZE][index] = (height, width)
  for key in (schema.VERB, schema.GROUP, schema.ROLES, schema.NOUNS):
    columns[key][index] = example[key]
