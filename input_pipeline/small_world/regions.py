"""What is in a box of a scene, in words, for training encoders."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from input_pipeline.geometry import Letterbox


@dataclasses.dataclass(frozen=True)
class Region:
  """A box and the words for what is in it.

  Attributes:
    box: corners x1, y1, x2, y2, as shares of the letterbox canvas.
    question: what is asked of it: a role's name, "object" or "activity".
    name: the answer: a noun, or an interaction; "" where there is none.
    words: all words that describe it, those of the answer among them.
  """

  box: tuple[float, float, float, float]
  question: str
  name: str
  words: tuple[str, ...]


def canvas_corners(
  height: int, width: int, corners: Sequence[float]
) -> tuple[float, float, float, float]:
  """Pixel corners of an image of `height` x `width` -> canvas shares."""
  place = Letterbox(height, width)
  left, top = place.offset
  x1, y1, x2, y2 = (float(x) * place.scale for x in corners)
  return (left + x1, top + y1, left + x2, top + y2)


def arrays(
  regions: Sequence[Sequence[Region]], words: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """The boxes and words of many scenes.

  Args:
    regions: of each of n scenes.
    words: the words that count; others are left out.

  Returns:
    Corners float32 [n, K, 4], filler without area, and which words describe
    each box, bool [n, K, len(words)]; K is the most boxes of a scene.
  """
  place = {word: i for i, word in enumerate(words)}
  most = max(len(some) for some in regions)
  boxes = np.zeros((len(regions), most, 4), np.float32)
  said = np.zeros((len(regions), most, len(words)), bool)
  for i, some in enumerate(regions):
    for k, region in enumerate(some):
      boxes[i, k] = region.box
      said[i, k, [place[w] for w in region.words if w in place]] = True
  return boxes, said
