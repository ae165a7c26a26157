"""The plan of a cache: everything that its bytes depend on.

That is the encoders with their revisions, the images, the vocabulary, the
texts, the options and the code that encodes. Two caches with equal plans are
interchangeable. A cache with another plan than expected is refused; the
message names the fields that differ.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np

from input_pipeline import schema
from input_pipeline.feature_cache import int8
from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError

# 3: with digests of the code and of every record.
FORMAT = 3
AGAIN = (
  "delete that folder and prepare it again, or choose another cache folder"
)
_FORM = {
  **dict.fromkeys(
    (
      *("teacher", "teacher_revision", "student", "student_revision"),
      *("dataset", "vocabulary", "rationales"),
    ),
    str,
  ),
  "options": [[str]],
  "fields": [{"name": str, "shape": [int], "dtype": str}],
  "splits": [{"name": str, "num_examples": int, "parts": [str]}],
  "examples_per_shard": int,
  "code": [[str]],
}

STUDENT = "student"
TEACHER = "teacher"
TEXT = "text"
VERB_LOGITS = "verb_logits"
CLIP_LOGITS = "clip_logits"
ANSWERS = "answers"
INSTANCE_TEXT = "instance_text"
# The contract's keys in one record of each part, in the order of their bytes.
PARTS: Mapping[str, tuple[str, ...]] = {
  STUDENT: (schema.STUDENT_TOKENS,),
  TEACHER: (schema.TEACHER_TOKENS,),
  TEXT: (schema.RATIONALE_TOKENS, schema.RATIONALE_MASK),
  VERB_LOGITS: (schema.VERB_LOGITS,),
  CLIP_LOGITS: (schema.CLIP_LOGITS,),
  ANSWERS: schema.ANSWER_KEYS,
  INSTANCE_TEXT: (schema.INSTANCE_TEXT, schema.INSTANCE_TEXT_MASK),
}


def parts_of(keys: Iterable[str]) -> tuple[str, ...]:
  """The parts that hold some features, in the order of `PARTS`.

  Raises:
    KeyError: a key is in no part.
  """
  wanted = set(keys)
  if absent := wanted - {key for names in PARTS.values() for key in names}:
    raise KeyError(f"no part of a cache holds {sorted(absent)}")
  return tuple(part for part, names in PARTS.items() if wanted & set(names))


# How messages name a field that differs.
_WORDS = {
  "teacher": "another teacher",
  "teacher_revision": "another revision of the teacher",
  "student": "another student encoder",
  "student_revision": "another revision of the student encoder",
  "dataset": "other images or annotations",
  "vocabulary": "another vocabulary",
  "rationales": "other rationales",
  "options": "other options",
  "fields": "features of other shapes or dtypes",
  "splits": "other splits",
  "examples_per_shard": "another shard size",
  "code": "other code",
}


def numpy_dtype(name: str) -> np.dtype:
  """The numpy dtype of that name, also for bfloat16."""
  return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@dataclasses.dataclass(frozen=True)
class Field:
  """One array of a record: a contract key, and its shape for one example."""

  name: str
  shape: tuple[int, ...]
  dtype: str

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * numpy_dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class SplitPlan:
  """One split: its number of examples and the parts it has."""

  name: str
  num_examples: int
  parts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Shard:
  """The examples `start..stop-1` of one part of one split, in one file."""

  split: str
  part: str
  number: int
  count: int
  start: int
  stop: int

  @property
  def path(self) -> str:
    """Relative to the cache's folder."""
    name = f"{self.part}-{self.number:05d}-of-{self.count:05d}.array_record"
    return f"{self.split}/{name}"


@dataclasses.dataclass(frozen=True)
class CachePlan:
  """Everything that the bytes of a cache depend on.

  `options` are name-value pairs of strings (geometry, dtypes, prompt
  templates); `fields` gives every feature's shape for one example; `code` has
  the modules that encode, each with the digest of `source_code`.
  """

  teacher: str
  teacher_revision: str
  student: str
  student_revision: str
  dataset: str
  vocabulary: str
  rationales: str
  options: tuple[tuple[str, str], ...]
  fields: tuple[Field, ...]
  splits: tuple[SplitPlan, ...]
  examples_per_shard: int
  code: tuple[tuple[str, str], ...] = ()

  def __post_init__(self):
    if self.examples_per_shard < 1:
      raise InputError(
        f"examples_per_shard is {self.examples_per_shard}",
        "give a positive number of examples per shard",
      )
    names = {field.name for field in self.fields}
    for split in self.splits:
      for part in split.parts:
        missing = set(PARTS[part]) - names
        if missing:
          raise InputError(
            f"split {split.name!r} has part {part!r} without the shape of "
            f"{sorted(missing)}",
            "add the missing fields to CachePlan.fields",
          )

  def to_json(self) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(self)))

  @classmethod
  def from_json(cls, data: object, where: str = "the plan") -> "CachePlan":
    """The inverse of `to_json`; `where` names the file in messages.

    Raises:
      InputError: the data has another form.
    """
    json_files.check(data, _FORM, where, AGAIN)
    names = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(data) - names):
      raise InputError(
        f"{where} has fields that this version doesn't know: {unknown}", AGAIN
      )
    lists = {"options": data["options"], "code": data["code"]}
    for name, pairs in lists.items():
      if any(len(pair) != 2 for pair in pairs):
        raise InputError(f"{where}: {name} is not a list of pairs", AGAIN)
    for split in data["splits"]:
      if wrong := [p for p in split["parts"] if p not in PARTS]:
        raise InputError(f"{where}: there is no part {wrong[0]!r}", AGAIN)
    return cls(
      **{
        **data,
        **{name: tuple(map(tuple, pairs)) for name, pairs in lists.items()},
        "fields": tuple(
          Field(f["name"], tuple(f["shape"]), f["dtype"])
          for f in data["fields"]
        ),
        "splits": tuple(
          SplitPlan(s["name"], s["num_examples"], tuple(s["parts"]))
          for s in data["splits"]
        ),
      }
    )

  @property
  def plan_hash(self) -> str:
    text = json.dumps(self.to_json(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  def split(self, name: str) -> SplitPlan:
    for split in self.splits:
      if split.name == name:
        return split
    raise InputError(
      f"the cache has no split {name!r}, only {[s.name for s in self.splits]}",
      "prepare a cache with that split",
    )

  def part_fields(self, part: str) -> tuple[Field, ...]:
    """The fields of one record of a part, in the order of their bytes.

    An int8 field is followed by the scales of its tokens (see `int8`).
    """
    by_name = {field.name: field for field in self.fields}
    names = [n for key in PARTS[part] for n in (key, int8.scale_name(key))]
    return tuple(by_name[name] for name in names if name in by_name)

  def record_bytes(self, part: str) -> int:
    return sum(field.nbytes for field in self.part_fields(part))

  def shards(self, split: str, part: str) -> tuple[Shard, ...]:
    """The shards of one part of one split, in the order of the examples."""
    total, size = self.split(split).num_examples, self.examples_per_shard
    count = -(-total // size)
    return tuple(
      Shard(split, part, i, count, i * size, min(total, (i + 1) * size))
      for i in range(count)
    )

  def all_shards(self) -> tuple[Shard, ...]:
    return tuple(
      shard
      for split in self.splits
      for part in split.parts
      for shard in self.shards(split.name, part)
    )


def check_same(actual: CachePlan, expected: CachePlan, folder: str) -> None:
  """Raises InputError that names every field in which two plans differ."""
  lines = []
  for field in dataclasses.fields(CachePlan):
    here, there = getattr(actual, field.name), getattr(expected, field.name)
    if here != there and field.name == "code":
      lines += _changed_code(dict(here), dict(there))
    elif here != there:
      here, there = _difference(here, there)
      lines.append(
        f"  {_WORDS[field.name]} ({field.name}): the cache has {here}, "
        f"this run expects {there}"
      )
  if lines:
    raise InputError(
      f"the cache {folder} was made for something else:\n" + "\n".join(lines),
      AGAIN,
    )


def _changed_code(here: Mapping, there: Mapping) -> list[str]:
  """A line for each encoding module that changed since the cache was made."""
  words = {
    (True, True): "has changed since",
    (True, False): "is not used any more",
    (False, True): "is used now and was not then",
  }
  return [
    f"  other code (code): code of {name} {words[name in here, name in there]}"
    for name in sorted({*here, *there})
    if here.get(name) != there.get(name)
  ]


def _difference(here, there):
  """The entries in which two tuples differ; other values as they are."""
  if isinstance(here, tuple) and isinstance(there, tuple):
    return (
      [entry for entry in here if entry not in there],
      [entry for entry in there if entry not in here],
    )
  return repr(here), repr(there)
