"""One image of the report: picture with boxes, verbs, frame, rationales."""

import base64
import dataclasses
import io
import math
from collections.abc import Sequence

from PIL import Image

from input_pipeline import schema
from mipd_jax.report import style
from mipd_jax.report.drawing import Box
from mipd_jax.report.examples import box_iou
from mipd_jax.report.html_page import paragraph, pill, text

# Longer side of the pixels that are stored, and of the SVG's own units.
_SIDE, _UNITS = 480, 400
# The first that gives at most so many bytes is taken; or the last.
_QUALITIES, _BYTES = (82, 65, 45, 25), 90_000
_BADGE = 18  # SVG units
_RATIONALES = dict(
  zip(
    schema.RATIONALES,
    (
      "glimpse+: what is going on",
      "glimpse-: a plausible activity that is not",
      "gaze+: who and what takes part",
      "gaze-: who and what does not",
    ),
    strict=True,
  )
)


@dataclasses.dataclass(frozen=True)
class RoleView:
  """One role of the true verb's frame.

  Attributes:
    role: its name.
    true_nouns: of the annotators; "" for a blank.
    noun: the student's.
    true_box, box: x1 y1 x2 y2 in original pixels; None: there is none.
    noun_right, box_right: as they are scored.
  """

  role: str
  true_nouns: tuple[str, ...]
  noun: str
  true_box: Box | None
  box: Box | None
  noun_right: bool
  box_right: bool


@dataclasses.dataclass(frozen=True)
class ExampleView:
  """One image with all that the page says of it.

  Attributes:
    image: RGB.
    width, height: of the original, to which boxes refer.
    name: of the file.
    group: of the true verb.
    true_verb, true_probability: the latter is the student's.
    student, teacher: the verb they take it for, and how probable it is.
    roles: of the true verb's frame, filled by the student for that verb.
    true_sentence, sentence: the true frame, and the student's own.
    own_frame: (role, noun) of the verb that the student takes it for.
    score: as `choice.RULE` says.
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


def card(view: ExampleView) -> str:
  """An article of HTML; the picture is in it."""
  rows = "".join(_row(i, role) for i, role in enumerate(view.roles))
  wrong = view.student[0] != view.true_verb
  return f"""<article class="card">{picture(view)}
<div><p class="verb"><span>{_verb(view)}</span>{pill(view.group).value}</p>
{_others(view)}
<table><thead><tr><th></th><th>role</th><th>truth</th><th>student</th>
</tr></thead><tbody>{rows}</tbody></table>
<dl><dt>annotated frame</dt><dd>{text(view.true_sentence)}</dd>
<dt>{"student's own frame" if wrong else "student"}</dt>
<dd>{text(view.sentence)}{_own_frame(view) if wrong else ""}</dd></dl>
{_rationales(view.rationales)}
<p class="faint">{text(view.name)}, score {view.score:.2f}</p>
</div></article>"""


def picture(view: ExampleView) -> str:
  """The image as JPEG in an SVG, true boxes solid, the student's dashed."""
  scale = _UNITS / max(view.width, view.height)
  width, height = view.width * scale, max(view.height * scale, 1)
  boxes = [
    (i, box, dashed)
    for i, role in enumerate(view.roles)
    for box, dashed in ((role.true_box, False), (role.box, True))
    if box is not None
  ]
  drawn = "".join(
    _box(tuple(v * scale for v in box), colour(i), dashed)
    for i, box, dashed in boxes
  )
  taken: list[tuple[float, float]] = []
  badges = "".join(
    _badge(i, [v * scale for v in box], (width, height), taken)
    for i, box, dashed in boxes
    if not dashed or view.roles[i].true_box is None
  )
  said = f"{view.true_verb}, taken for {view.student[0]}"
  return (
    f'<svg viewBox="0 0 {width:.1f} {height:.1f}" role="img" '
    f'aria-label="{text(said)}">'
    f'<image href="{data_uri(view.image)}" width="{width:.1f}" '
    f'height="{height:.1f}" preserveAspectRatio="none"/>{drawn}{badges}</svg>'
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


def colour(position: int) -> str:
  """Of a role, by its place in the frame."""
  return style.ROLE_COLOURS[position % len(style.ROLE_COLOURS)]


def _box(box: Box, ink: str, dashed: bool) -> str:
  x1, y1, x2, y2 = box
  place = (
    f'x="{x1:.1f}" y="{y1:.1f}" width="{max(x2 - x1, 1):.1f}" '
    f'height="{max(y2 - y1, 1):.1f}" fill="none"'
  )
  dashes = ' stroke-dasharray="8 5"' if dashed else ""
  # The dark casing keeps light colours legible on light images.
  return (
    f'<rect {place} stroke="#000" stroke-width="5"{dashes}/>'
    f'<rect {place} stroke="{ink}" stroke-width="3"{dashes}/>'
  )


def _badge(
  position: int,
  box: Sequence[float],
  size: tuple[float, float],
  taken: list[tuple[float, float]],
) -> str:
  """The role's number at a corner of its box where no other one stands."""
  x1, y1, x2, y2 = box
  right, bottom = x2 - _BADGE, y2 - _BADGE
  wishes = [(x1, y1), (right, y1), (x1, bottom), (right, bottom)]
  wishes += [(x1 + i * _BADGE, y1) for i in range(1, 7)]
  wishes = [
    (
      min(max(x, 0), max(size[0] - _BADGE, 0)),
      min(max(y, 0), max(size[1] - _BADGE, 0)),
    )
    for x, y in wishes
  ]

  def free(place):
    return not any(
      abs(place[0] - x) < _BADGE and abs(place[1] - y) < _BADGE
      for x, y in taken
    )

  x, y = next(filter(free, wishes), wishes[0])
  taken.append((x, y))
  return (
    f'<rect x="{x:.1f}" y="{y:.1f}" width="{_BADGE}" height="{_BADGE}" '
    f'fill="{colour(position)}" stroke="#000"/>'
    f'<text x="{x + _BADGE / 2:.1f}" y="{y + _BADGE * 0.75:.1f}" '
    'text-anchor="middle" style="fill:#000;font-weight:700">'
    f"{position + 1}</text>"
  )


def _verb(view: ExampleView) -> str:
  verb, probability = view.student
  right = verb == view.true_verb
  said = f"{_mark(right)} <b>{text(verb)}</b> {probability:.0%}"
  if right:
    return said
  return (
    f"{said}, but it is <b>{text(view.true_verb)}</b> "
    f"{view.true_probability:.0%}"
  )


def _others(view: ExampleView) -> str:
  if view.teacher is None:
    return ""
  verb, probability = view.teacher
  right = verb == view.true_verb
  words = f"teacher: {_mark(right)} {text(verb)} {probability:.0%}"
  return f'<p class="faint">{words}</p>'


def _row(position: int, role: RoleView) -> str:
  chip = (
    f'<span class="chip" style="background:{colour(position)}">'
    f"{position + 1}</span>"
  )
  truth = " / ".join(dict.fromkeys(n or "blank" for n in role.true_nouns))
  return (
    f"<tr><td>{chip}</td><td>{text(role.role)}</td>"
    f"<td>{text(truth or 'blank')}</td>"
    f"<td>{_mark(role.noun_right)} {text(role.noun or 'blank')}<br>"
    f'<span class="faint">{_mark(role.box_right)} {_box_words(role)}</span>'
    "</td></tr>"
  )


def _box_words(role: RoleView) -> str:
  if role.true_box is None:
    return "no box" if role.box is None else "box added"
  if role.box is None:
    return "box missed"
  # Rounded down: 0.50 is right.
  overlap = math.floor(100 * box_iou(role.true_box, role.box)) / 100
  return f"IoU {overlap:.2f}"


def _mark(right: bool) -> str:
  kind, sign, word = (
    ("right", "✓", "right") if right else ("wrong", "✗", "wrong")
  )
  return f'<span class="{kind}" title="{word}">{sign}</span>'


def _own_frame(view: ExampleView) -> str:
  roles = "; ".join(f"{r}: {n or 'nothing'}" for r, n in view.own_frame)
  return f'<br><span class="faint">{text(roles)}</span>' if roles else ""


def _rationales(texts: Sequence[str]) -> str:
  if not texts:
    return ""
  parts = [
    f"<dt>{text(name)}</dt><dd>{text(words)}</dd>"
    for name, words in zip(_RATIONALES.values(), texts, strict=True)
  ]
  return f"<dl>{''.join(parts)}</dl>"


def cards(views: Sequence[ExampleView]) -> str:
  """Side by side as there is room; says so where there are none."""
  if not views:
    return paragraph("There is no such image.", "faint")
  return f'<div class="cards">{"".join(map(card, views))}</div>'
