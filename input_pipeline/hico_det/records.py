"""One annotated image of people and objects, from any form of file.

Boxes are x1 y1 x2 y2 in pixels, zero-based, both corners inside the box: a
box of one pixel has x1 == x2, and its width is x2 - x1 + 1.
"""

import dataclasses
import pathlib

import numpy as np

from input_pipeline.io.findings import Place


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class ImageLabels:
  """A file's labels of an image: L labels, each with its own two boxes.

  Attributes:
    place: its file and its image.
    size: (height, width) in pixels; None if the file does not say.
    human_boxes, object_boxes: float64 [L, 4].
    interactions: int32 [L].
    visible: bool [L], False for labels that metrics leave out.
    image_interactions: int32, the labels of the image as a whole; None if the
      file does not say.
  """

  place: Place
  size: tuple[int, int] | None
  human_boxes: np.ndarray
  object_boxes: np.ndarray
  interactions: np.ndarray
  visible: np.ndarray
  image_interactions: np.ndarray | None

  @property
  def name(self) -> str:
    """File name of the image."""
    return self.place.image_path.name


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Record:
  """One image: N boxes, P pairs of them, L labels of pairs.

  Attributes:
    place: its file and its image.
    height, width: of the image, pixels.
    boxes: float32 [N, 4], all different.
    objects: int32 [N], the object in each box.
    pairs: int32 [P, 2], a person's box and an object's box, all different.
    labels: int32 [L, 2], a pair and one of its interactions.
  """

  place: Place
  height: int
  width: int
  boxes: np.ndarray
  objects: np.ndarray
  pairs: np.ndarray
  labels: np.ndarray

  @property
  def path(self) -> pathlib.Path:
    """Where the image is."""
    return self.place.image_path

  @property
  def name(self) -> str:
    """File name of the image."""
    return self.place.image_path.name

  def read_image(self) -> bytes:
    """Bytes of the image, checked as `Place.read_image` does."""
    return self.place.read_image((self.height, self.width))

  def keep(self, labels: np.ndarray) -> "Record":
    """The record with some labels, and the pairs and boxes they need.

    Args:
      labels: bool [L], the labels to keep.
    """
    kept = self.labels[labels]
    used_pairs, pair_of = np.unique(kept[:, 0], return_inverse=True)
    pairs = self.pairs[used_pairs]
    used_boxes, box_of = np.unique(pairs, return_inverse=True)
    return dataclasses.replace(
      self,
      boxes=self.boxes[used_boxes],
      objects=self.objects[used_boxes],
      pairs=box_of.reshape(-1, 2).astype(np.int32),
      labels=np.stack([pair_of.ravel(), kept[:, 1]], axis=1).astype(np.int32),
    )

  def as_labels(self) -> ImageLabels:
    """The inverse of `merge`: labels with their two boxes, all visible."""
    pairs = self.pairs[self.labels[:, 0]]
    return ImageLabels(
      place=self.place,
      size=(self.height, self.width),
      human_boxes=self.boxes[pairs[:, 0]].astype(np.float64),
      object_boxes=self.boxes[pairs[:, 1]].astype(np.float64),
      interactions=self.labels[:, 1],
      visible=np.ones(len(self.labels), bool),
      image_interactions=None,
    )


def merge(
  image: ImageLabels,
  size: tuple[int, int],
  object_of: np.ndarray,
  person: int,
) -> Record:
  """Merges equal boxes and equal pairs of an image.

  Boxes are equal if all coordinates and the object are equal; two annotators'
  boxes of one person stay two. Labels keep their order; boxes and pairs are in
  the order of their first label.

  Args:
    image: its labels; invisible ones are left out.
    size: (height, width) in pixels; boxes are clipped to it.
    object_of: int32 [I], the object of each interaction.
    person: the object that acts.
  """
  seen = image.visible
  interactions = image.interactions[seen]
  limit = np.array([size[1], size[0]] * 2) - 1
  corners = np.concatenate([image.human_boxes[seen], image.object_boxes[seen]])
  corners = np.clip(corners, 0, limit)
  kinds = np.concatenate(
    [np.full(len(interactions), person), object_of[interactions]]
  )
  # Person and object of a label are adjacent rows, so order is by label.
  rows = np.concatenate([corners, kinds[:, None]], axis=1)
  rows = rows.reshape(2, -1, 5).transpose(1, 0, 2).reshape(-1, 5)
  boxes, box_of = _once(rows)
  pairs, pair_of = _once(box_of.reshape(-1, 2))
  return Record(
    place=image.place,
    height=size[0],
    width=size[1],
    boxes=boxes[:, :4].astype(np.float32),
    objects=boxes[:, 4].astype(np.int32),
    pairs=pairs.astype(np.int32),
    labels=np.stack([pair_of, interactions], axis=1).astype(np.int32),
  )


def _once(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Unique rows [U, k] in order of first occurrence, and the index of each."""
  unique, first, which = np.unique(
    rows, axis=0, return_index=True, return_inverse=True
  )
  order = np.argsort(first)
  place = np.empty_like(order)
  place[order] = np.arange(len(order))
  return unique[order], place[which.ravel()]
