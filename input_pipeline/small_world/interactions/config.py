"""Sizes and rates of a small world of interactions."""

import dataclasses
from typing import Annotated

from input_pipeline import ranges
from input_pipeline.io.errors import InputError


@dataclasses.dataclass(frozen=True)
class PairWorldConfig:
  """All settings of a world: equal configs give equal bytes.

  Attributes:
    seed: seed of codes, looks, the lists of interactions and the scenes.
    num_verbs, num_objects: their numbers; persons are one more object.
    objects_per_verb: fewest and most objects of a verb.
    unseen_share: share of the interactions (UC), verbs (UV) and objects (UO)
      that are unseen in the split of that name.
    rare_share: share of interactions with fewer than 10 training pairs.
    train_images, test_images: numbers of images.
    people: chances of 1, 2 and 3 persons in an image; each has an object.
    idle: chance that a person does not interact with its object.
    side: longer side of an image, pixels.
    jitter: noise of detected boxes, in shares of their size (standard
      deviation).
    missed: chance that a box is not detected.
    false_boxes: mean number of detected boxes on nothing.
    mistaken: chance that a detected object gets a wrong class.
    jpeg_quality: quality of the written images.
  """

  seed: ranges.Whole = 0
  num_verbs: ranges.Count = 24
  num_objects: ranges.Count = 12
  objects_per_verb: tuple[ranges.Count, ranges.Count] = (3, 6)
  unseen_share: ranges.Share = 0.2
  rare_share: ranges.Share = 0.2
  train_images: ranges.Count = 2400
  test_images: ranges.Count = 800
  people: tuple[ranges.Share, ranges.Share, ranges.Share] = (0.6, 0.3, 0.1)
  idle: ranges.Share = 0.15
  side: Annotated[int, ranges.Range(16)] = 128
  jitter: ranges.Weight = 0.05
  missed: ranges.Share = 0.05
  false_boxes: ranges.Weight = 0.5
  mistaken: ranges.Share = 0.05
  jpeg_quality: Annotated[int, ranges.Range(1, 100)] = 95

  def __post_init__(self):
    low, high = self.objects_per_verb
    if not 1 <= low <= high <= self.num_objects:
      raise InputError(
        f"objects_per_verb={self.objects_per_verb} of {self.num_objects} "
        "objects is not (fewest, most)",
        "give two counts, the smaller first, within num_objects",
      )
    if min(self.train_images, self.test_images, self.num_verbs - 2) < 1:
      raise InputError(
        "a small world needs images for training and test, and three verbs",
        "give train_images, test_images at least 1 and num_verbs at least 3",
      )

  @classmethod
  def tiny(cls, seed: int = 0) -> "PairWorldConfig":
    """8 verbs, 5 objects, 60 images: for tests."""
    return cls(
      seed=seed,
      num_verbs=8,
      num_objects=5,
      objects_per_verb=(2, 3),
      train_images=40,
      test_images=20,
      side=96,
    )
