"""What a prediction says: plain values, nothing of jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from input_pipeline.io.errors import InputError
from mipd_jax.inference.pictures import shown

Box = tuple[float, float, float, float]  # x1, y1, x2, y2


@dataclasses.dataclass(frozen=True)
class VerbGuess:
  """A verb and its probability among all verbs of the list."""

  verb: str
  probability: float


@dataclasses.dataclass(frozen=True)
class NounGuess:
  """A noun and its probability among all nouns of the list.

  `noun` is "" where the guess is that nothing fills the role; `class_id` is
  the class of the workdir's vocabulary ("n10287213"), None for a new word.
  """

  noun: str
  probability: float
  class_id: str | None = None


@dataclasses.dataclass(frozen=True)
class RoleGuess:
  """What fills one role.

  Attributes:
    role: its name.
    nouns: the best first.
    box: in pixels of the upright original, inside it; None where the student
      says that there is none to draw.
    confidence: probability that there is a box; 0.5 and more gives one.
  """

  role: str
  nouns: tuple[NounGuess, ...]
  box: Box | None
  confidence: float


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What the student says of one image.

  Attributes:
    name: path of the image, or what its place in the list was.
    width, height: of the upright original, pixels; boxes refer to them.
    verbs: the best first.
    verb: whose frame `roles` are: the best one, or the one that was given.
    roles: of that verb's frame, in its order.
    sentence: the verb's abstract with the nouns put in.
    notes: what was done to the image before ("turned upright").
    frames: roles of each verb of `verbs`, where they were asked for; they are
      not part of `to_dict`.
  """

  name: str
  width: int
  height: int
  verbs: tuple[VerbGuess, ...]
  verb: str
  roles: tuple[RoleGuess, ...]
  sentence: str
  notes: tuple[str, ...] = ()
  frames: Mapping[str, tuple[RoleGuess, ...]] = dataclasses.field(
    default_factory=dict
  )

  def to_dict(self) -> dict[str, Any]:
    """As JSON takes it; `image` is the name."""
    values = dataclasses.asdict(self)
    del values["frames"]
    return {"image": values.pop("name"), **values}


@dataclasses.dataclass(frozen=True)
class Failure:
  """An image that could not be read, and why.

  Attributes:
    name: path of the image, or what its place in the list was.
    error: whose message begins with that name, as it can be shown.
  """

  name: str
  error: InputError

  @property
  def reason(self) -> str:
    """Why, without the name."""
    return self.error.problem.removeprefix(f"{shown(self.name)}: ")

  def to_dict(self) -> dict[str, Any]:
    """As JSON takes it."""
    return {"image": self.name, "error": self.reason}
