"""The content of the report's card of one image: pixels, boxes, words.

`card` of templates/parts.html.j2 lays it out.
"""

import base64
import dataclasses
import io
import math
from collections.abc import Sequence

from PIL import Image

from mipd_jax.report import drawing
from mipd_jax.report.drawing import Box
from mipd_jax.report.examples import box_iou

# Longer side of the stored pixels, and of the SVG's units.
_SIDE, _UNITS = 480, 400
# The first quality within this many bytes is taken, or the last.
_QUALITIES, _BYTES = (82, 65, 45, 25), 90_000
# In the order of `schema.RATIONALES`.
_RATIONALES = (
  "glimpse+: what is going on",
  "glimpse-: a plausible activity that is not",
  "gaze+: who and what takes part",
  "gaze-: who and what does not",
)


@dataclasses.dataclass(frozen=True)
class RoleView:
  """One role of the true verb's frame.

  Attributes:
    role: its name.
    true_nouns: of the annotators; "" for a blank.
    noun: the student's.
    true_box, box: x1 y1 x2 y2 in original pixels; None: there is none.
    noun_right, box_right: as in the scores.
  """

  role: str
  true_nouns: tuple[str, ...]
  noun: str
  true_box: Box | None
  box: Box | None
  noun_right: bool
  box_right: bool

  @property
  def truth(self) -> str:
    """The annotators' nouns, each once."""
    nouns = dict.fromkeys(noun or "blank" for noun in self.true_nouns)
    return " / ".join(nouns) or "blank"

  @property
  def box_words(self) -> str:
    """The place of the student's box, in words."""
    if self.true_box is None:
      return "no box" if self.box is None else "box added"
    if self.box is None:
      return "box missed"
    # Rounded down: 0.50 is right.
    overlap = math.floor(100 * box_iou(self.true_box, self.box)) / 100
    return f"IoU {overlap:.2f}"


@dataclasses.dataclass(frozen=True)
class ExampleView:
  """One image with all that the page shows of it.

  Attributes:
    image: RGB.
    width, height: of the original, to which boxes refer.
    name: of the file.
    group: of the true verb.
    true_verb, true_probability: the latter is the student's.
    student, teacher: their verb and its probability.
    roles: of the true verb's frame, filled by the student for that verb.
    true_sentence, sentence: the true frame, and the student's own.
    own_frame: (role, noun) of the student's own verb.
    score: by `examples.RULE`.
    rationales: the image's four, in the order of `schema.RATIONALES`.
  """

  image: Image.Image
  width: int
  height: int
  name: str
  group: str
  true_verb: str
  true_probability: float
  student: tuple[str, float]
  teacher: tuple[str, float] | None
  roles: Sequence[RoleView]
  true_sentence: str
  sentence: str
  own_frame: Sequence[tuple[str, str]]
  score: float
  rationales: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Card:
  """An example with its picture, as the template draws it.

  Attributes:
    view: the facts of the image.
    pixels: the image as a data URI.
    size: width and height of the picture, units of the SVG.
    boxes: (role, corners in these units, whether it is the student's).
    badges: (role, top left corner of its number).
    rationales: (name, text).
    side: side of the squares behind the numbers.
  """

  view: ExampleView
  pixels: str
  size: tuple[float, float]
  boxes: Sequence[tuple[int, Box, bool]]
  badges: Sequence[tuple[int, tuple[float, float]]]
  rationales: Sequence[tuple[str, str]]
  side: int = drawing.BADGE


def card(view: ExampleView) -> Card:
  """True boxes, then the student's; a role's number is at one of them."""
  scale = _UNITS / max(view.width, view.height)
  size = (view.width * scale, max(view.height * scale, 1))
  boxes = [
    (i, tuple(v * scale for v in box), dashed)
    for i, role in enumerate(view.roles)
    for box, dashed in ((role.true_box, False), (role.box, True))
    if box is not None
  ]
  numbered = {i: box for i, box, _ in reversed(boxes)}  # the true box, if any
  numbered = dict(sorted(numbered.items()))
  room = (0, 0, *(max(length, drawing.BADGE) for length in size))
  places = drawing.badge_places(list(numbered.values()), room)
  named = zip(_RATIONALES, view.rationales, strict=True)
  return Card(
    view=view,
    pixels=data_uri(view.image),
    size=size,
    boxes=boxes,
    badges=list(zip(numbered, places, strict=True)),
    rationales=list(named) if view.rationales else [],
  )


def data_uri(image: Image.Image) -> str:
  """The image as JPEG, its longer side at most 480 pixels."""
  image = image.convert("RGB")
  image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
  for quality in _QUALITIES:
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=quality, optimize=True)
    if stored.tell() <= _BYTES:
      break
  content = base64.b64encode(stored.getvalue()).decode("ascii")
  return f"data:image/jpeg;base64,{content}"
