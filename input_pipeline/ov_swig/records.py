"""One record of a SWiG JSON: reads, checks and numbers it."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import boxes
from input_pipeline.io import images
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import Place, RecordError
from input_pipeline.ov_swig.layout import SPACE_FILE
from input_pipeline.ov_swig.vocabulary import Vocabulary
from input_pipeline.schema import ANNOTATORS

# Keys of the published rationales, in the order of `schema.RATIONALES`.
RATIONALE_KEYS = (
  "pos_verb_caption",
  "neg_verb_caption",
  "pos_attr_caption",
  "neg_attr_caption",
)


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Record:
  """One annotated image; R is the number of roles of its verb's frame.

  Attributes:
    place: its file and its image.
    verb: verb id.
    height, width: of the image, pixels.
    nouns: int32 [R, 3] noun classes of the three annotators.
    boxes: float32 [R, 4] x1 y1 x2 y2 in pixels, inside the image; -1 absent.
    rationales: the four texts in the order of `schema.RATIONALES`, or None.
  """

  place: "Place"
  verb: int
  height: int
  width: int
  nouns: np.ndarray
  boxes: np.ndarray
  rationales: tuple[str, ...] | None

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


# Annotated corners may lie this many pixels outside; they are clipped.
_TOLERANCE = 2.0
_MOST_PIXELS = 2**31 - 1  # longest side; int32 holds it


def parse(
  entry: Mapping[str, Any],
  place: Place,
  words: Vocabulary,
  *,
  boxes_required: bool,
  report: Callable[[RecordError], None] | None = None,
) -> Record:
  """Turns a JSON record into numbers.

  Args:
    entry: the record.
    place: where it is.
    words: verbs, roles and nouns.
    boxes_required: whether a record without 'bb' is an error (training) or
      one without grounded roles.
    report: called with each error; it raises, or accepts errors of boxes: a
      box is then clipped to the image, or dropped if nothing is left. None
      raises the first error.

  Raises:
    RecordError: an unknown verb, a role outside the frame, a wrong box, a
      wrong type: the first of `problems`.
  """

  def stop(error: RecordError) -> None:
    raise error

  reader = _Reader(entry, place, words, report or stop)
  verb = reader.verb()
  height, width = reader.size()
  return Record(
    place=place,
    verb=verb,
    height=height,
    width=width,
    nouns=reader.nouns(),
    boxes=reader.boxes((height, width), boxes_required),
    rationales=reader.rationales(),
  )


def wrong_verb(
  entry: Any, place: Place, words: Vocabulary
) -> RecordError | None:
  """The error for a record's verb; None if the verb has a frame."""
  verb = entry.get("verb") if isinstance(entry, dict) else None
  if isinstance(verb, str) and verb in words.verb_index:
    return None
  remedy = f"add the verb to {SPACE_FILE}, or take the image out"
  if isinstance(verb, str) and (like := words.verb_like(verb)):
    remedy = f"write it {like!r}, as {SPACE_FILE} does"
  if not isinstance(entry, dict):
    problem = f"its record is {_short(entry)}, not an object"
    return RecordError(
      place, "verb", problem, "see docs/own_data.md for the form of a record"
    )
  return RecordError(
    place,
    "verb",
    f"it has the verb {_short(verb)}, which has no frame",
    remedy,
  )


def problems(
  entry: Any, place: Place, words: Vocabulary, *, boxes_required: bool
) -> list[RecordError]:
  """All faults of a record; [] if `parse` would accept it."""
  errors: list[RecordError] = []
  reader = _Reader(entry, place, words, errors.append)
  if reader.verb() is None:
    return errors  # The roles are unknown.
  size = reader.size()
  reader.nouns()
  reader.boxes(size, boxes_required)
  reader.rationales()
  return errors


def leaves(box: Sequence[float], height: int, width: int) -> bool:
  """Whether a box leaves its image by more than the tolerance."""
  return (
    min(box[0], box[1]) < -_TOLERANCE
    or box[2] > width + _TOLERANCE
    or box[3] > height + _TOLERANCE
  )


@dataclasses.dataclass(frozen=True)
class _Reader:
  """Reads one record; `report` raises, or collects so that reading goes on."""

  entry: Any
  place: Place
  words: Vocabulary
  report: Callable[[RecordError], None]

  def _report(
    self,
    kind: str,
    problem: str,
    remedy: str,
    role: str | None = None,
    *,
    lost: bool = False,
  ) -> None:
    self.report(RecordError(self.place, kind, problem, remedy, role, lost))

  @property
  def roles(self) -> tuple[str, ...]:
    """Role names of the frame."""
    return self.words.frame_roles(self.words.verb_index[self.entry["verb"]])

  def verb(self) -> int | None:
    wrong = wrong_verb(self.entry, self.place, self.words)
    if wrong is None:
      return self.words.verb_index[self.entry["verb"]]
    self.report(wrong)
    return None

  def size(self) -> tuple[int, int]:
    """(height, width) of the record, or of the image if it has none."""
    entry = self.entry
    if "height" not in entry or "width" not in entry:
      try:
        return images.read_size(self.place.image_path)
      except InputError as error:
        self.report(self.place.image_error(error))
        return 0, 0
    size = (entry["height"], entry["width"])
    if all(type(side) is int and 0 < side <= _MOST_PIXELS for side in size):
      return size
    self._report(
      "size",
      f"height and width are {_short(size)}",
      "give both in pixels, or leave both out to take the image's own",
    )
    return 0, 0

  def nouns(self) -> np.ndarray:
    """int32 [R, 3]; fewer than three annotators are repeated in turn."""
    roles = self.roles
    frames = self.entry.get("frames")
    if (
      not isinstance(frames, list)
      or not 1 <= len(frames) <= ANNOTATORS
      or not all(isinstance(frame, dict) for frame in frames)
    ):
      self._report(
        "frames",
        f"'frames' is not a list of 1 to {ANNOTATORS} objects",
        "give one object {role: noun id or ''} per annotator",
      )
      frames = [{}]
    for number, frame in enumerate(frames, 1):
      self._check_roles(frame, roles, "frames")
      for role, noun in frame.items():
        if not isinstance(noun, str):
          self._report(
            "frames",
            f"annotator {number} gives the noun {noun!r}",
            "a noun is a WordNet id such as 'n02084071', or '' for none",
            role,
          )
    table = [
      [self.words.noun_id(_text(frame.get(role))) for frame in frames]
      for role in roles
    ]
    annotators = np.arange(ANNOTATORS) % len(frames)
    return np.array(table, np.int32)[:, annotators]

  def boxes(self, size: tuple[int, int], required: bool) -> np.ndarray:
    """float32 [R, 4], clipped to the image; -1 where a role has no box."""
    roles = self.roles
    given = self.entry.get("bb")
    if given is None and not required:
      given = {}
    if not isinstance(given, dict):
      self._report(
        "boxes",
        "a training record has no boxes, 'bb'",
        "add 'bb': {role: [x1, y1, x2, y2] or [-1, -1, -1, -1]}",
      )
      given = {}
    self._check_roles(given, roles, "bb")
    corners = np.full((len(roles), 4), -1.0, np.float32)
    for row, role in enumerate(roles):
      if not boxes.is_absent(box := given.get(role)):
        corners[row] = self._box(box, role, size)
    return corners

  def _box(self, box: Any, role: str, size: tuple[int, int]) -> Sequence[float]:
    if not boxes.is_box(box):
      remedy = "give four numbers, x1 y1 x2 y2"
      problem = f"it has the box {_short(box)}, which is not four numbers"
      self._report("boxes", problem, remedy, role, lost=True)
      return boxes.ABSENT
    height, width = size
    if not height:  # The size is unknown, which is reported already.
      return boxes.ABSENT
    left = boxes.cut(box, [height, width]).astype(np.float32)
    lost = bool(left[0] >= left[2] or left[1] >= left[3])
    if boxes.is_flipped(box):
      what = "is empty: its corners are the wrong way round"
    elif max(box) <= 1 and any(x % 1 for x in box) and max(size) > 2:
      what, lost = "lies within 0..1: a share of the image, not pixels", True
    elif leaves(box, height, width):
      what = "leaves the image" + (", nothing of it is inside" if lost else "")
    elif lost:
      what = "is empty"
    else:
      return left
    self._report(
      "boxes",
      f"the box {_short(box)} {what} ({width} wide, {height} high)",
      "correct it (x1 < x2 <= width, y1 < y2 <= height), or set it to "
      "[-1, -1, -1, -1] if the role is not grounded",
      role,
      lost=lost,
    )
    return boxes.ABSENT if lost else left

  def rationales(self) -> tuple[str, ...] | None:
    texts = tuple(self.entry.get(key) or "" for key in RATIONALE_KEYS)
    for key, text in zip(RATIONALE_KEYS, texts, strict=True):
      if not isinstance(text, str):
        remedy = "give one string, or ''"
        self._report("rationales", f"{key!r} is not a text", remedy)
        return None
    return texts if any(texts) else None

  def _check_roles(
    self, entry: Mapping[str, Any], roles: Sequence[str], field: str
  ) -> None:
    for role in entry:
      if role not in roles:
        self._report(
          "roles",
          f"{field!r} has a role that the frame of {self.entry['verb']!r}, "
          f"{list(roles)}, does not have",
          "rename or remove the role, or add it to the verb's 'order' in "
          "imsitu_space.json",
          role,
        )


def _text(noun: Any) -> str:
  return noun if isinstance(noun, str) else ""


def _short(value: Any) -> str:
  """A value as text for a message, shortened."""
  text = repr(value)
  return text if len(text) <= 60 else f"{text[:57]}..."
