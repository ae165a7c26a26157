"""How a cache is to be made, and the plan that follows from it."""

import dataclasses
from pathlib import PurePath
from typing import TYPE_CHECKING

import jax

from input_pipeline.errors import InputError
from input_pipeline.feature_cache import (
  STUDENT,
  TEACHER,
  ZERO_SHOT,
  CachePlan,
  SplitPlan,
)
from mipd_jax.rationales import templates
from mipd_jax.teachers import labels
from mipd_jax.teachers.encoding import Encoder, feature_fields

if TYPE_CHECKING:
  from input_pipeline.ov_swig import PreparedSwig

TRAIN = "train"


@dataclasses.dataclass(frozen=True)
class PrecomputeConfig:
  """How a cache is made.

  Attributes:
    batch_size: images per batch on all devices; does not change the cache.
    examples_per_shard: examples in a file; a restart redoes at most one file
      of each part. Every file stays open while training: make few.
    text_length: text tokens kept of a rationale.
    rationale_seed: of the wrong verbs and nouns in negative rationales.
    definition_words: words of a noun's definition in a rationale.
    dtype: of the stored tokens.
    splits: those to encode; `train` has the teacher's tokens besides.
  """

  batch_size: int = 64
  examples_per_shard: int = 4096
  text_length: int = 77
  rationale_seed: int = 0
  definition_words: int = 8
  dtype: str = "bfloat16"
  splits: tuple[str, ...] = ("train", "dev", "test")


def make_plan(
  dataset: "PreparedSwig",
  student: Encoder,
  teacher: Encoder,
  text: Encoder,
  config: PrecomputeConfig,
) -> CachePlan:
  """What the cache of this dataset and these encoders holds.

  Raises:
    InputError: the rationales are longer than the text tower reads.
  """
  _, mask = text.tokenize([""], config.text_length)
  if mask.shape[1] != config.text_length:
    raise InputError(
      f"text_length is {config.text_length}, but {text.name} "
      f"reads {mask.shape[1]} tokens at most",
      f"set text_length to {mask.shape[1]} or less",
    )
  fields = feature_fields(
    student,
    teacher,
    text,
    len(dataset.vocabulary.verbs),
    config.text_length,
    config.dtype,
  )
  return CachePlan(
    teacher=PurePath(teacher.name).name,
    teacher_revision=teacher.revision,
    student=PurePath(student.name).name,
    student_revision=student.revision,
    dataset=dataset.fingerprint,
    vocabulary=dataset.vocabulary.fingerprint,
    rationales=(
      f"{templates.VERSION} seed={config.rationale_seed} "
      f"definition_words={config.definition_words}"
    ),
    options=(
      ("geometry", "letterbox"),
      ("groups", dataset.groups.sha256),
      ("labels", labels.VERSION),
      ("student_dtype", _param_dtype(student)),
      ("teacher_dtype", _param_dtype(teacher)),
      ("text_encoder", f"{PurePath(text.name).name} {text.revision}"),
    ),
    fields=fields,
    splits=tuple(
      SplitPlan(name, len(dataset.split(name)), _parts(name))
      for name in config.splits
    ),
    examples_per_shard=config.examples_per_shard,
  )


def _parts(split: str) -> tuple[str, ...]:
  """Evaluation needs no teacher tokens (METHOD table, row 9)."""
  if split == TRAIN:
    return (STUDENT, TEACHER, ZERO_SHOT)
  return (STUDENT, ZERO_SHOT)


def _param_dtype(encoder: Encoder) -> str:
  dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(encoder.params)}
  return ",".join(sorted(dtypes))
