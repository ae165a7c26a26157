"""Sizes and rates of a small world."""

import dataclasses
from typing import Annotated

from input_pipeline import ranges
from input_pipeline.io.errors import InputError

# Smaller images show nothing.
_Side = Annotated[int, ranges.Range(16)]


@dataclasses.dataclass(frozen=True)
class WorldConfig:
  """All settings of a small world: equal configs give equal bytes.

  Attributes:
    seed: seed of verbs' codes, nouns' looks, groups and scenes.
    num_seen, num_rare, num_unseen: number of verbs in each group.
    num_nouns: number of noun classes with places, without blank, oov and Pad.
    train_seen: fewest and most training images of a seen verb; the counts
      between them fall off exponentially (mean about 40 by default).
    train_rare: fewest and most training images of a rare verb.
    dev_images, test_images: images per seen, rare and unseen verb.
    longer_side: least and greatest longer side of an image, pixels.
    aspect: least and greatest width over height.
    attribute_noise: chance, per attribute, of a random value in an image.
    preferred: chance that a role takes one of its verb's preferred nouns.
    blank: chance that a role is empty in an image.
    hidden: chance that a role is annotated but not drawn, so has no box.
    slip: chance that an annotator gives the most similar noun instead.
    skip: chance that an annotator leaves a filled role empty.
    jpeg_quality: quality of the written images.
  """

  seed: ranges.Whole = 0
  num_seen: ranges.Count = 64
  num_rare: ranges.Count = 16
  num_unseen: ranges.Count = 16
  num_nouns: ranges.Count = 138
  train_seen: tuple[ranges.Count, ranges.Count] = (16, 90)
  train_rare: tuple[ranges.Count, ranges.Count] = (3, 6)
  dev_images: tuple[ranges.Whole, ranges.Whole, ranges.Whole] = (5, 6, 10)
  test_images: tuple[ranges.Whole, ranges.Whole, ranges.Whole] = (16, 20, 40)
  longer_side: tuple[_Side, _Side] = (96, 128)
  aspect: tuple[ranges.Positive, ranges.Positive] = (0.8, 1.25)
  attribute_noise: ranges.Share = 0.04
  preferred: ranges.Share = 0.7
  blank: ranges.Share = 0.05
  hidden: ranges.Share = 0.05
  slip: ranges.Share = 0.12
  skip: ranges.Share = 0.04
  jpeg_quality: Annotated[int, ranges.Range(1, 100)] = 95

  def __post_init__(self):
    if min(self.num_seen, self.num_rare, self.num_unseen) < 1:
      raise InputError(
        "a small world needs seen, rare and unseen verbs",
        "give num_seen, num_rare and num_unseen at least 1 each",
      )
    if not 0 < self.train_seen[0] <= self.train_seen[1]:
      raise InputError(
        f"train_seen={self.train_seen} is not (fewest, most)",
        "give two positive counts, the smaller first",
      )

  @property
  def num_verbs(self) -> int:
    return self.num_seen + self.num_rare + self.num_unseen

  @classmethod
  def tiny(cls, seed: int = 0) -> "WorldConfig":
    """12 verbs, 30 nouns, about 100 training images: for tests."""
    return cls(
      seed=seed,
      num_seen=8,
      num_rare=2,
      num_unseen=2,
      num_nouns=30,
      train_seen=(6, 18),
      train_rare=(2, 3),
      dev_images=(2, 2, 2),
      test_images=(3, 3, 4),
    )
