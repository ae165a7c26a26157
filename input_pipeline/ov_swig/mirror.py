"""The mirrored view of an image, and a split that adds it to every image.

A mirrored view is another image to the encoders: it needs its own features,
and everything that describes places must be mirrored with the pixels,
including boxes and the words "left" and "right" in rationales. (The reference
flips boxes and keeps features and texts: docs/method.md.)

Everything is mirrored about the middle of the canvas, where `Letterbox`
centres an image, so a mirrored view has the geometry of its image.
"""

import functools
import logging
import re
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.image_split import ImageSplit

_SIDE = r"(?:left|right)"
_OF_ONE = r"(?:the|its|his|her|their|the (?:image|picture|viewer|camera)'s)"
# After "on the right" only what is not a noun, to exclude "the right tool".
_NO_NOUN = (
  r"(?=\W*$|[.,;:!?)]|(?:\W+(?:of|and|or|with|while|in|on|at|is|are|was|were|as|"
  r"near|next|behind|beside|who|which|that|has|have|where|to|from)\b))"
)
_MEMBERS = (
  r"hands?|arms?|legs?|foot|feet|eyes?|ears?|shoulders?|knees?|elbows?|wrists?|"
  r"fists?|palms?|thumbs?|fingers?|thighs?|hips?|cheeks?|paws?|gloves?|shoes?|"
  r"sleeves?|sides?|halves|half|edge|corners?|foreground|background"
)
_PLACES = tuple(
  re.compile(pattern, re.IGNORECASE)
  for pattern in (
    rf"\b(?:far|upper|lower|top|bottom|middle|center|centre) ({_SIDE})\b",
    # Not "she left shoes behind".
    rf"(?:^|[.:;,] |\b(?:{_OF_ONE}|a|one|my|your|front|rear|back|upper|lower) )"
    rf"({_SIDE}) (?:{_MEMBERS})\b",
    rf"\b({_SIDE})-(?:hand|handed|foot|footed|side)\b",
    rf"\b(?:on|at|to|in|from|towards?|near|along|by|facing) {_OF_ONE} (left)\b",
    rf"\b(?:on|at|to|from|towards?|near|along|by|facing) {_OF_ONE} "
    rf"(right){_NO_NOUN}",
    rf"\b(?:at|from|towards?|facing|turn(?:s|ing|ed)?) ({_SIDE})"
    r"(?=\W*$|[.,;:!?)])",
    rf"\b({_SIDE})(?= (?:and|or|to) (?:the )?{_SIDE}\b)",
    rf"\b{_SIDE} (?:and|or|to) (?:the )?({_SIDE})\b",
  )
)
# How our own templates end a sentence: "agent: a dog, furry animal, left."
_TEMPLATE = re.compile(rf", (?:small |large )?({_SIDE})(?=\.|$)")
# Phrases that are not places and stay as they are.
_NO_PLACE = re.compile(
  r"\b(?:right (?:angles?|angled|away|now|after|before)|all right|"
  r"left(?:-| )?overs?|left behind)\b",
  re.IGNORECASE,
)
_WORD = re.compile(rf"\b{_SIDE}\b", re.IGNORECASE)
# A mirror exchanges these in any context.
_SWAP = {
  "left": "right",
  "leftmost": "rightmost",
  "leftward": "rightward",
  "leftwards": "rightwards",
  "clockwise": "counterclockwise",
}
_SWAP |= {there: here for here, there in _SWAP.items()}
_SWAP |= {"counter-clockwise": "clockwise", "anticlockwise": "clockwise"}
_SWAPPED = re.compile(
  r"(?<!counter-)\b(?:" + "|".join(map(re.escape, _SWAP)) + r")\b",
  re.IGNORECASE,
)


def mirror_image(image: Image.Image) -> Image.Image:
  """The mirrored image, of the same size."""
  return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def mirror_pixels(pixels: np.ndarray) -> np.ndarray:
  """Canvases [..., side, side, channels], mirrored: a new array.

  If the border has an odd number of pixels, the image is one pixel from where
  letterboxing the mirrored image would put it.
  """
  return np.ascontiguousarray(pixels[..., ::-1, :])


def mirror_boxes(boxes: np.ndarray) -> np.ndarray:
  """cx cy w h on the unit canvas [..., 4], mirrored; -1 stays -1."""
  boxes = np.asarray(boxes)
  mirrored = boxes.copy()
  mirrored[..., 0] = 1 - boxes[..., 0]
  return np.where(boxes[..., 2:3] < 0, boxes, mirrored)


def mirror_pixel_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
  """x1 y1 x2 y2 in pixels of an image [..., 4], mirrored; -1 stays -1."""
  boxes = np.asarray(boxes)
  mirrored = boxes.copy()
  mirrored[..., 0] = width - boxes[..., 2]
  mirrored[..., 2] = width - boxes[..., 0]
  return np.where(boxes[..., :1] < 0, boxes, mirrored)


def mirror_annotations(
  columns: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Columns or a batch of `schema.ANNOTATIONS` with the boxes mirrored."""
  return dict(columns) | {schema.BOXES: mirror_boxes(columns[schema.BOXES])}


def mirror_text(text: str, where: str = "") -> str:
  """A rationale with left and right exchanged.

  Args:
    text: the rationale.
    where: its image or file, for the message.

  Raises:
    InputError: the text has a "left" or "right" that may not be a place ("the
      man who left", "the right tool"); a mirrored view of it is refused.
  """
  places = _places(text)
  kept = [match.span() for match in _NO_PLACE.finditer(text)]

  def is_kept(word: re.Match) -> bool:
    return any(start <= word.start() < stop for start, stop in kept)

  for word in _WORD.finditer(text):
    if word.start() not in places and not is_kept(word):
      raise InputError(
        f"{where + ': ' if where else ''}the text {text!r} has "
        f"{word[0]!r} (character {word.start()}), which may not be a place, "
        "so it cannot be mirrored",
        "reword it ('on the left', 'left hand', 'top left'), or make no "
        "mirrored view",
      )

  def swap(word: re.Match) -> str:
    if is_kept(word):
      return word[0]
    return _like(word[0], _SWAP[word[0].lower()])

  return _SWAPPED.sub(swap, text)


def mirror_texts(texts: Sequence[str], where: str = "") -> tuple[str, ...]:
  """`mirror_text` of each text, such as the four rationales of an image."""
  return tuple(mirror_text(text, where) for text in texts)


def _places(text: str) -> set[int]:
  """The positions of every "left" or "right" that is a place."""
  starts = {
    match.start(1) for place in _PLACES for match in place.finditer(text)
  }
  for match in _TEMPLATE.finditer(text):
    sentence = text[text.rfind(". ", 0, match.start()) + 1 : match.start()]
    if ": " in sentence:  # "role: noun", the beginning in our templates
      starts.add(match.start(1))
  return starts


def _like(model: str, word: str) -> str:
  """`word` in the case of `model`: lower, Capital or UPPER."""
  if model.isupper():
    return word.upper()
  return word.capitalize() if model[:1].isupper() else word


MIRRORED = " (mirrored)"  # ends the name of a mirrored view


class BothViews:
  """n images of a split, then their mirrored views; see `ImageSplit`.

  Boxes are mirrored with the pixels, so texts made from them (templates,
  facts for a language model) have left and right exchanged; in texts of the
  records the words are exchanged. An image whose text cannot be exchanged
  safely has no mirrored view; a warning counts these.
  """

  def __init__(self, split: ImageSplit):
    self.name = split.name
    self._split = split

  def __len__(self) -> int:
    return len(self._split) + len(self._mirrored)

  @property
  def num_examples(self) -> int:
    return len(self)

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    names = self._split.names
    return (*names, *(names[i] + MIRRORED for i in self._mirrored))

  def annotations(self) -> dict[str, np.ndarray]:
    """The columns of `schema.ANNOTATIONS`, one row per view."""
    return dict(self._columns)

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Annotations of some examples, without `example_mask`."""
    columns = self._columns.items()
    return {k: v[indices] for k, v in columns if k != schema.EXAMPLE_MASK}

  @functools.cached_property
  def _columns(self) -> dict[str, np.ndarray]:
    plain = self._split.annotations()
    other = mirror_annotations(plain)
    rows = self._mirrored
    columns = {k: np.concatenate([plain[k], other[k][rows]]) for k in plain}
    columns[schema.INDEX] = np.arange(len(self), dtype=np.int32)
    for column in columns.values():
      column.setflags(write=False)
    return columns

  def image(self, index: int) -> Image.Image:
    index, mirrored = self._place(index)
    image = self._split.image(index)
    return mirror_image(image) if mirrored else image

  def letterboxed(
    self, indices: Sequence[int] | np.ndarray, size: int
  ) -> np.ndarray:
    """Images on the square canvas: uint8 [n, size, size, 3]."""
    return self.letterboxed_sizes(indices, (size,))[size]

  def letterboxed_sizes(
    self, indices: Sequence[int] | np.ndarray, sizes: Sequence[int]
  ) -> dict[int, np.ndarray]:
    """`letterboxed` at several sizes: uint8 [n, s, s, 3] by s."""
    places, views = zip(*map(self._place, indices), strict=True)
    canvas = self._split.letterboxed_sizes(places, sizes)
    flipped = np.array(views)
    for pixels in canvas.values():
      pixels[flipped] = mirror_pixels(pixels[flipped])
    return canvas

  def rationales(self, index: int) -> tuple[str, ...] | None:
    """The record's texts; mirrored ones with left and right exchanged."""
    index, mirrored = self._place(index)
    texts = self._split.rationales(index)
    if texts is None or not mirrored:
      return texts
    return mirror_texts(texts, self._split.names[index])

  def _place(self, index: int) -> tuple[int, bool]:
    """Index in the split, and whether the view is mirrored."""
    mirrored = int(index) - len(self._split)
    if mirrored < 0:
      return int(index), False
    return int(self._mirrored[mirrored]), True

  @functools.cached_property
  def _mirrored(self) -> np.ndarray:
    """Images that have a mirrored view, int [m]."""
    safe, refused = [], []
    for index in range(len(self._split)):
      texts = self._split.rationales(index)
      try:
        mirror_texts(texts or (), self._split.names[index])
        safe.append(index)
      except InputError as error:
        refused.append(error)
    if refused:
      logging.getLogger(__name__).warning(
        "%d of %d images have no mirrored view; the first: %s",
        len(refused),
        len(self._split),
        refused[0].problem,
      )
    return np.array(safe, np.int64)
