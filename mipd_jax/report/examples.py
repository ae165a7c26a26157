"""What the sheet shows of an image, and which images it shows."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from input_pipeline import schema
from input_pipeline.errors import InputError
from mipd_jax.report.drawing import Box


@dataclasses.dataclass(frozen=True)
class RoleExample:
  """One role: nouns as words, boxes as (x1, y1, x2, y2) original pixels."""

  role: str
  true_nouns: tuple[str, ...]
  predicted_noun: str
  true_box: Box | None
  predicted_box: Box | None

  @property
  def noun_right(self) -> bool:
    """Whether one of the annotators gave the predicted noun."""
    return self.predicted_noun in self.true_nouns

  @property
  def box_verdict(self) -> tuple[bool, str]:
    """Right or wrong as the metric grnd has it, and in words."""
    if self.true_box is None or self.predicted_box is None:
      both = self.true_box is None and self.predicted_box is None
      missed = self.predicted_box is None
      words = "no box" if both else "box missed" if missed else "box added"
      return both, words
    iou = box_iou(self.true_box, self.predicted_box)
    return iou >= 0.5, f"IoU {iou:.2f}"


@dataclasses.dataclass(frozen=True)
class Example:
  """One image of the sheet.

  The roles are those of the true verb's frame, in its order, with nouns and
  boxes predicted for that frame.
  """

  image: Image.Image | np.ndarray  # original pixels; uint8 [H, W, 3] or [H, W]
  name: str
  group: str
  true_verb: str
  predicted_verb: str
  probability: float | None
  roles: Sequence[RoleExample]


def box_iou(a: Box, b: Box) -> float:
  """Intersection over union of two (x1, y1, x2, y2) boxes, 0..1."""
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  shared = max(width, 0) * max(height, 0)
  areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
  return shared / (areas - shared) if areas > shared else 0.0


def choose_examples(
  groups: Sequence[str | int], correct: Sequence[bool], k: int, seed: int
) -> list[int]:
  """Draws images of all groups, right and wrong ones, without looking.

  Within a cell (group, right or wrong) the draw is random; the cells take
  turns, so that a sheet shows about as many wrong images as right ones
  whatever the accuracy is. Say so below the sheet.

  Args:
    groups: group of each image, a name or an index into `schema.GROUPS`.
    correct: whether the image's verb was predicted.
    k: how many to draw; all of them when there are fewer.
    seed: the same seed draws the same images.

  Returns:
    Positions, by group in the order of `schema.GROUPS`, right ones first.
  """
  names = [
    group if isinstance(group, str) else schema.GROUPS[int(group)]
    for group in groups
  ]
  if len(names) != len(correct) or k < 0:
    raise InputError(
      f"{len(names)} groups, {len(correct)} verdicts, k = {k}",
      "give one group and one verdict per image, and k >= 0",
    )
  # Right and wrong alternate along the turns: even a few draws show both.
  turns = [(g, i % 2 == 0) for i, g in enumerate(schema.GROUPS)]
  turns += [(g, i % 2 == 1) for i, g in enumerate(schema.GROUPS)]
  order = np.random.default_rng(seed).permutation(len(names)).tolist()
  cells = {
    cell: [i for i in order if (names[i], bool(correct[i])) == cell]
    for cell in turns
  }
  deals = [
    (deal, turns.index(cell), position)
    for cell, members in cells.items()
    for deal, position in enumerate(members)
  ]
  chosen = [position for _, _, position in sorted(deals)[:k]]
  return sorted(
    chosen,
    key=lambda i: (schema.GROUPS.index(names[i]), not correct[i], i),
  )
