"""One record of a SWiG JSON: parsed, checked, numbered."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import images
from input_pipeline.errors import InputError
from input_pipeline.schema import ANNOTATORS
from input_pipeline.vocabulary import Vocabulary

# Keys of the published rationales, in the order of `schema.RATIONALES`.
RATIONALE_KEYS = (
  "pos_verb_caption",
  "neg_verb_caption",
  "pos_attr_caption",
  "neg_attr_caption",
)
# Annotated corners may lie this many pixels outside; they are clipped.
_TOLERANCE = 2.0


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
  """One annotated image; R is the number of roles of its verb's frame.

  Attributes:
    name: file name of the image.
    path: where it is.
    verb: verb id.
    group: group of the verb, an index into `schema.GROUPS`.
    height, width: of the image, pixels.
    nouns: int32 [R, 3] noun classes of the three annotators.
    boxes: float32 [R, 4] x1 y1 x2 y2 in pixels, inside the image; -1 absent.
    rationales: the four texts in the order of `schema.RATIONALES`, or None.
  """

  name: str
  path: pathlib.Path
  verb: int
  group: int
  height: int
  width: int
  nouns: np.ndarray
  boxes: np.ndarray
  rationales: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a record stands, for messages."""

  json_path: pathlib.Path
  image_path: pathlib.Path

  def error(self, problem: str, remedy: str) -> InputError:
    return InputError(
      f"{self.json_path}: image {self.image_path.name}: {problem}", remedy
    )


def parse(
  entry: Mapping[str, Any],
  place: Place,
  words: Vocabulary,
  groups: np.ndarray,
  *,
  boxes_required: bool,
) -> Record:
  """Turns a JSON record, whose verb is known, into numbers.

  Args:
    entry: the record.
    place: where it stands.
    words: verbs, roles and nouns.
    groups: [V] group of each verb.
    boxes_required: whether a record without 'bb' is an error (training) or
      one in which no role is grounded.

  Raises:
    InputError: a role outside the frame, a wrong box, a wrong type.
  """
  verb = words.verb_index[entry["verb"]]
  roles = words.frame_roles(verb)
  height, width = _size(entry, place)
  return Record(
    name=place.image_path.name,
    path=place.image_path,
    verb=verb,
    group=int(groups[verb]),
    height=height,
    width=width,
    nouns=_nouns(entry, place, words, roles),
    boxes=_boxes(entry, place, roles, (height, width), boxes_required),
    rationales=_rationales(entry, place),
  )


def _size(entry: Mapping[str, Any], place: Place) -> tuple[int, int]:
  """(height, width) of the record, or of the image where it has none."""
  if "height" not in entry or "width" not in entry:
    return images.read_size(place.image_path)
  size = (entry["height"], entry["width"])
  if not all(isinstance(side, int) and side > 0 for side in size):
    raise place.error(
      f"height and width are {size}",
      "give both in pixels, or leave both out to take the image's own",
    )
  return size


def _nouns(
  entry: Mapping[str, Any],
  place: Place,
  words: Vocabulary,
  roles: Sequence[str],
) -> np.ndarray:
  """int32 [R, 3]; fewer than three annotators are repeated in turn."""
  frames = entry.get("frames")
  if (
    not isinstance(frames, list)
    or not 1 <= len(frames) <= ANNOTATORS
    or not all(isinstance(frame, dict) for frame in frames)
  ):
    raise place.error(
      f"'frames' is not a list of 1 to {ANNOTATORS} objects",
      "give one object {role: noun id or ''} per annotator",
    )
  for frame in frames:
    _check_roles(frame, place, entry["verb"], roles, "frames")
    for role, noun in frame.items():
      if not isinstance(noun, str):
        raise place.error(
          f"role {role!r} has the noun {noun!r}",
          "a noun is a WordNet id such as 'n02084071', or '' for none",
        )
  table = [
    [words.noun_id(frame.get(role, "")) for frame in frames] for role in roles
  ]
  annotators = np.arange(ANNOTATORS) % len(frames)
  return np.array(table, np.int32)[:, annotators]


def _boxes(
  entry: Mapping[str, Any],
  place: Place,
  roles: Sequence[str],
  size: tuple[int, int],
  required: bool,
) -> np.ndarray:
  """float32 [R, 4], clipped to the image; -1 where a role has no box."""
  found = entry.get("bb")
  if found is None and not required:
    found = {}
  if not isinstance(found, dict):
    raise place.error(
      "a training record has no boxes, 'bb'",
      "add 'bb': {role: [x1, y1, x2, y2] or [-1, -1, -1, -1]}",
    )
  _check_roles(found, place, entry["verb"], roles, "bb")
  boxes = np.full((len(roles), 4), -1.0, np.float32)
  for row, role in enumerate(roles):
    box = found.get(role)
    if box is not None and box != [-1, -1, -1, -1]:
      boxes[row] = _one_box(box, place, role, size)
  return boxes


def _one_box(
  box: Any, place: Place, role: str, size: tuple[int, int]
) -> tuple[float, float, float, float]:
  height, width = size
  if (
    not isinstance(box, list)
    or len(box) != 4
    or not all(isinstance(v, (int, float)) for v in box)
  ):
    raise place.error(
      f"role {role!r} has the box {box!r}", "give four numbers, x1 y1 x2 y2"
    )
  x1, y1, x2, y2 = box
  inside = (
    min(x1, y1) >= -_TOLERANCE
    and x2 <= width + _TOLERANCE
    and y2 <= height + _TOLERANCE
  )
  x1, x2 = (min(max(x, 0), width) for x in (x1, x2))
  y1, y2 = (min(max(y, 0), height) for y in (y1, y2))
  if not inside or not (x1 < x2 and y1 < y2):
    why = "is empty" if inside else "leaves the image"
    raise place.error(
      f"the box {box} of role {role!r} {why} ({width} wide, {height} high)",
      "correct it (x1 < x2 <= width, y1 < y2 <= height), or set it to "
      "[-1, -1, -1, -1] if the role is not grounded",
    )
  return x1, y1, x2, y2


def _rationales(
  entry: Mapping[str, Any], place: Place
) -> tuple[str, ...] | None:
  texts = tuple(entry.get(key) or "" for key in RATIONALE_KEYS)
  for key, text in zip(RATIONALE_KEYS, texts, strict=True):
    if not isinstance(text, str):
      raise place.error(f"{key!r} is not a text", "give one string, or ''")
  return texts if any(texts) else None


def _check_roles(
  found: Mapping[str, Any],
  place: Place,
  verb: str,
  roles: Sequence[str],
  field: str,
) -> None:
  for role in found:
    if role not in roles:
      raise place.error(
        f"{field!r} names the role {role!r}, which the frame of {verb!r}, "
        f"{list(roles)}, has not",
        "rename or remove the role, or add it to the verb's 'order' in "
        "imsitu_space.json",
      )
