"""Random access to one split of a prepared dataset: records and pixels."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from input_pipeline.geometry import letterbox_image
from input_pipeline.hico_det import splits
from input_pipeline.hico_det.records import Record
from input_pipeline.hico_det.splits import ZeroShot
from input_pipeline.io import images
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import Place
from input_pipeline.ov_swig.image_split import Rows

_CHUNK = 128  # images in memory at a time while the records are read


@dataclasses.dataclass(frozen=True, eq=False)
class HicoSplit:
  """One split; all methods may be called from several threads.

  Attributes:
    name: 'train' or 'test'.
    records: annotations in index order; their paths are only names.
    rows: examples with the features of `builder.HicoDet`, image as bytes.
    places: int64, the row of each record.
    location: where the rows are stored, for messages.
  """

  name: str
  records: tuple[Record, ...]
  rows: Rows
  places: np.ndarray
  location: pathlib.Path

  @classmethod
  def read(cls, name: str, rows: Rows, location: pathlib.Path) -> "HicoSplit":
    """Reads the records in one pass over the split.

    Raises:
      InputError: the split has no image or cannot be read.
    """
    if not len(rows):
      raise InputError(
        f"{location}: split {name!r} has no image", "build the folder again"
      )
    records: list[Record] = []
    for start in range(0, len(rows), _CHUNK):
      chunk = range(start, min(start + _CHUNK, len(rows)))
      records += [
        _record(row, location) for row in _fetch(rows, chunk, name, location)
      ]
    return cls(name, tuple(records), rows, np.arange(len(rows)), location)

  def __len__(self) -> int:
    return len(self.records)

  @property
  def names(self) -> tuple[str, ...]:
    """File name of every image, in index order."""
    return tuple(record.name for record in self.records)

  def seen_only(self, split: ZeroShot, dropping: str) -> "HicoSplit":
    """The part of 'train' that zero-shot training may see.

    Args:
      split: which interactions are unseen.
      dropping: see `splits.without_unseen`; images without labels are left
        out.

    Raises:
      InputError: nothing is left, or an unknown way of dropping.
    """
    records = [splits.without_unseen(r, split, dropping) for r in self.records]
    kept = [index for index, record in enumerate(records) if record is not None]
    if not kept:
      raise InputError(
        f"no image of {self.name!r} has a label that {split.name!r} leaves "
        "seen",
        "choose another split, or give more annotations",
      )
    return dataclasses.replace(
      self,
      records=tuple(records[index] for index in kept),
      places=self.places[kept],
    )

  def image(self, index: int) -> Image.Image:
    """The original image, RGB; InputError names a broken one."""
    return self._images([index])[0]

  def letterboxed_sizes(
    self, indices: Sequence[int] | np.ndarray, sizes: Sequence[int]
  ) -> dict[int, np.ndarray]:
    """Images on square canvases, each decoded once: uint8 [n, s, s, 3] by s."""
    canvas = {s: np.empty((len(indices), s, s, 3), np.uint8) for s in sizes}
    for row, image in enumerate(self._images(indices)):
      for size, pixels in canvas.items():
        pixels[row] = letterbox_image(image, size)
    return canvas

  def _images(self, indices: Sequence[int] | np.ndarray) -> list[Image.Image]:
    places = [int(self.places[index]) for index in indices]
    return [
      images.decode(row["image"], row["image_name"].decode())
      for row in _fetch(self.rows, places, self.name, self.location)
    ]


def _fetch(
  rows: Rows, keys: Sequence[int], name: str, location: pathlib.Path
) -> Sequence[Mapping[str, Any]]:
  try:
    return rows.__getitems__(list(keys))
  except Exception as error:  # array_record's errors have no common type.
    raise InputError(
      f"{location}: split {name!r} cannot be read: {error}",
      "delete that folder; it is prepared again from the images",
    ) from error


def _record(row: Mapping[str, Any], location: pathlib.Path) -> Record:
  return Record(
    place=Place(location, pathlib.Path(row["image_name"].decode())),
    height=int(row["height"]),
    width=int(row["width"]),
    boxes=np.asarray(row["boxes"], np.float32).reshape(-1, 4),
    objects=np.asarray(row["objects"], np.int32).reshape(-1),
    pairs=np.asarray(row["pairs"], np.int32).reshape(-1, 2),
    labels=np.asarray(row["labels"], np.int32).reshape(-1, 2),
  )
