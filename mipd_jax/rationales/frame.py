"""An annotated frame in words, true and wrong: what a rationale may say."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Activity:
  """A verb with its participants.

  Attributes:
    verb: its name.
    meaning: its definition, short; '' if there is none.
    abstract: imSitu's sentence with roles in capitals; '' if there is none.
    parts: (role, word) of its whole frame, in order; an unfilled role has a
      vague word such as "something".
    sentence: the abstract with those words; "a dog as agent" if there is no
      abstract.
  """

  verb: str
  meaning: str
  abstract: str
  parts: tuple[tuple[str, str], ...]
  sentence: str


@dataclasses.dataclass(frozen=True)
class Instance:
  """The filler of a role.

  Attributes:
    role: its name.
    noun: the commonest word for it.
    looks: the noun's definition, short.
    place: its place, such as "small top left"; '' if unknown.
    nouns: every word for every annotated noun, `noun` included.
  """

  role: str
  noun: str
  looks: str
  place: str
  nouns: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class AnnotatedFrame:
  """One image's annotation, and a plausible wrong one.

  Attributes:
    image: file name.
    true: the annotated verb.
    wrong: another verb that would fit most of the same roles.
    instances: the filled roles.
    wrong_instances: the same roles with nouns that no annotator gave, left
      and right exchanged.
  """

  image: str
  true: Activity
  wrong: Activity
  instances: tuple[Instance, ...]
  wrong_instances: tuple[Instance, ...]
