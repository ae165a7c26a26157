"""The settings of a cache, and the plan that follows from them."""

import dataclasses
import importlib.metadata
from collections.abc import Collection
from pathlib import PurePath
from typing import TYPE_CHECKING

import jax
from absl import logging

from input_pipeline.feature_cache import (
  ANSWERS,
  INSTANCE_TEXT,
  PARTS,
  STUDENT,
  TEACHER,
  TEXT,
  Cache,
  CachePlan,
  Field,
  SplitPlan,
  parts_of,
  source_code,
)
from input_pipeline.io.errors import InputError
from mipd_jax.models.eyes import ENCODER_TOKENS, Eyes
from mipd_jax.teachers import answers, labels
from mipd_jax.teachers.answers import Showing
from mipd_jax.teachers.encoding import feature_fields
from mipd_jax.teachers.interfaces import (
  Encoder,
  ImageTeacher,
  InstanceSource,
)

if TYPE_CHECKING:
  from input_pipeline.dataset import Dataset
  from mipd_jax.rationales.source import RationaleSource

TRAIN = "train"
# Tasks of a run besides the parts of the cache.
LABELS, RATIONALES = "labels", "rationales"
TASKS = (LABELS, RATIONALES, *PARTS)
DTYPES = ("bfloat16", "float32", "int8")
# The function that starts encoding; the classes of the encoders, images and
# rationales are added.
_START = "mipd_jax.teachers.precompute._Builder"
# Libraries that the numbers depend on. Another version changes at most the last
# digits, as another chip does, so it causes a warning and no error. The code of
# transformers' models is part of the plan.
_LIBRARIES = ("jax", "jaxlib", "numpy", "pillow", "tokenizers", "transformers")


@dataclasses.dataclass(frozen=True)
class PrecomputeConfig:
  """The settings of a cache.

  Attributes:
    batch_size: images per batch on all devices; does not change the cache.
    examples_per_shard: examples per file; a restart redoes at most one file
      of each part. Training keeps every file open: make few.
    text_length: text tokens kept of a rationale.
    dtype: of the stored tokens; int8 has a scale for each token.
    splits: those to encode; `train` also gets the teacher's tokens.
    parts: of `feature_cache.PARTS`, the parts of the cache; `student` is
      whatever the student's eyes read.
    showing: how the teacher is asked about instances; None: it is not.
    sentences: whether gaze texts are split by instance and embedded.
  """

  batch_size: int = 64
  examples_per_shard: int = 4096
  text_length: int = 77
  dtype: str = "bfloat16"
  splits: tuple[str, ...] = ("train", "dev", "test")
  parts: tuple[str, ...] = tuple(PARTS)
  showing: Showing | None = None
  sentences: bool = False

  def __post_init__(self):
    _known("dtype", [self.dtype], DTYPES)
    _known("part", self.parts, PARTS)


def check_tasks(tasks: Collection[str]) -> None:
  """Raises InputError if one of the tasks is not in `TASKS`."""
  _known("task", tasks, TASKS)


def _known(what: str, given: Collection[str], known: Collection[str]) -> None:
  unknown = [name for name in given if name not in known]
  if unknown:
    raise InputError(
      f"no {what} of a teacher cache is called {unknown[0]!r}",
      f"there are {', '.join(known)}",
    )


def make_plan(
  dataset: "Dataset",
  student: Encoder,
  teacher: ImageTeacher,
  text: Encoder,
  rationales: "RationaleSource",
  config: PrecomputeConfig,
  eyes: Eyes = ENCODER_TOKENS,
  instances: InstanceSource | None = None,
) -> CachePlan:
  """What the cache of this dataset and these encoders holds.

  `instances` are needed for answers and for sentences about them.

  Raises:
    InputError: the rationales are longer than the text tower reads, or the
      teacher cannot be asked about instances in the given way.
  """
  _, mask = text.tokenize([""], config.text_length)
  if mask.shape[1] != config.text_length:
    raise InputError(
      f"text_length is {config.text_length}, but {text.name} "
      f"reads {mask.shape[1]} tokens at most",
      f"set text_length to {mask.shape[1]} or less",
    )
  answered, shown = (), {}
  if config.showing:
    answers.check_teacher(teacher, config.showing.way)
    answered = answers.fields(instances.slots, config.showing.top_k)
    shown = answers.options(instances, config.showing)
  fields = feature_fields(
    student,
    teacher,
    text,
    len(dataset.vocabulary.verbs),
    config.text_length,
    config.dtype,
    eyes,
    answered,
    instances.slots if config.sentences else 0,
  )
  parts = _there(fields, with_eyes(config.parts, eyes))
  teacher_options = (
    (f"teacher_{name}", value) for name, value in teacher.options.items()
  )
  return CachePlan(
    teacher=PurePath(teacher.name).name,
    teacher_revision=teacher.revision,
    student=PurePath(student.name).name,
    student_revision=student.revision,
    dataset=dataset.fingerprint,
    vocabulary=dataset.vocabulary.fingerprint,
    rationales=rationales.version,
    options=(
      ("geometry", "letterbox"),
      ("groups", dataset.groups.sha256),
      *shown.items(),
      ("labels", labels.VERSION),
      ("student_dtype", _param_dtype(student.params)),
      ("teacher_dtype", _param_dtype(teacher.params)),
      ("text_encoder", f"{PurePath(text.name).name} {text.revision}"),
      *sorted(teacher_options),
    ),
    fields=fields,
    splits=tuple(
      SplitPlan(name, len(dataset.split(name)), _parts(name, parts))
      for name in config.splits
    ),
    examples_per_shard=config.examples_per_shard,
    code=code(
      dataset,
      student,
      teacher,
      text,
      rationales,
      config.splits,
      eyes,
      instances if config.showing or config.sentences else None,
    ),
  )


def code(
  dataset: "Dataset",
  student: Encoder,
  teacher: ImageTeacher,
  text: Encoder,
  rationales: "RationaleSource",
  splits: Collection[str],
  eyes: Eyes = ENCODER_TOKENS,
  instances: InstanceSource | None = None,
) -> tuple[tuple[str, str], ...]:
  """Module and digest of all code that encodes these objects.

  See `feature_cache.source_code`. For a CLIP it has no BLIP-2, and for a
  language model no templates.
  """
  entries = source_code.entries_of(
    dataset,
    student,
    teacher,
    text,
    rationales,
    eyes,
    *((instances,) if instances else ()),
    *(dataset.split(name) for name in splits),
  )
  return tuple(source_code.reached([_START, *entries]).items())


def libraries() -> dict[str, str]:
  """Versions of the libraries that the numbers depend on."""
  return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def warn_of_libraries(cache: Cache) -> None:
  """Warns of versions that differ from those that made a cache."""
  here = libraries()
  differing = [
    f"{name} {version} (here {here.get(name, 'none')})"
    for name, version in sorted(cache.libraries.items())
    if here.get(name) != version
  ]
  if differing:
    logging.warning(
      "The cache %s was made with %s. It is used as it is; new features may "
      "differ from it in their last digits.",
      cache.folder,
      ", ".join(differing),
    )


def with_eyes(names: Collection[str], eyes: Eyes) -> set[str]:
  """Names of parts and tasks; `student` becomes what the eyes read."""
  return {*names, *(parts_of(eyes.keys) if STUDENT in names else ())}


def _there(fields: Collection[Field], wanted: Collection[str]) -> set[str]:
  """The wanted parts that these encoders and eyes have."""
  names = {field.name for field in fields}
  return {part for part in wanted if names.issuperset(PARTS[part])}


def _parts(split: str, wanted: Collection[str]) -> tuple[str, ...]:
  """Evaluation needs no teacher tokens, no texts (METHOD table, row 9)."""
  only_train = (
    ()
    if split == TRAIN
    else (
      TEACHER,
      TEXT,
      ANSWERS,
      INSTANCE_TEXT,
    )
  )
  return tuple(p for p in PARTS if p in wanted and p not in only_train)


def _param_dtype(params: dict) -> str:
  dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(params)}
  return ",".join(sorted(dtypes))
