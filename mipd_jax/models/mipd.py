"""MIPD: the student, and the teacher branch that trains it."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from input_pipeline import schema
from mipd_jax.models import eyes
from mipd_jax.models.config import ModelConfig, Sizes
from mipd_jax.models.student import Student
from mipd_jax.models.teaching.eye_lessons import BoxNouns, Foretelling
from mipd_jax.models.teaching.open_layers import OpenLayers
from mipd_jax.models.teaching.teacher_branch import TeacherBranch

# Submodules of `Mipd` that prediction has no use for.
_OF_TRAINING = ("teacher_branch", "box_nouns", "foretelling")


def of_prediction(params: Mapping[str, Any]) -> dict[str, Any]:
  """The parameters that `Mipd.predict` reads."""
  return {name: x for name, x in params.items() if name not in _OF_TRAINING}


class Mipd(nn.Module):
  """Batches of the contract to the outputs of `models.outputs`.

  `__call__` is for training and needs every key; `predict` needs the
  student's only, so no teacher and no rationale at inference (row 9).

  With `absorbed` False every attention computes all its keys and values: the
  same results for more arithmetic. `open_layers` are the teacher's frozen
  layers that prompts pass through; None where the config has none.
  """

  config: ModelConfig
  sizes: Sizes
  dtype: jnp.dtype = jnp.float32
  absorbed: bool = True
  open_layers: OpenLayers | None = None
  # The parts, which another task has of its own.
  student_type: ClassVar[type[nn.Module]] = Student
  teacher_type: ClassVar[type[nn.Module]] = TeacherBranch
  has_roles: ClassVar[bool] = True

  def setup(self):
    self.eyes = eyes.of(self.config, self.dtype)
    self.student = self.student_type(
      self.config,
      self.sizes,
      self.dtype,
      self.absorbed,
      frozen=not self.eyes.trained,
    )
    self.asks_boxes = self.config.box_nouns and self.has_roles
    if self.asks_boxes:
      self.box_nouns = BoxNouns(self.config, self.dtype)
    if self.config.foretell:
      self.foretelling = Foretelling(self.dtype)
    if self.config.teacher_branch:
      self.teacher_branch = self.teacher_type(
        self.config, self.dtype, self.absorbed, self.open_layers
      )

  def __call__(
    self,
    batch: Mapping[str, Array],
    banks: Mapping[str, Array],
    *,
    train: bool = False,
  ) -> dict[str, Array]:
    student = self.predict(batch, banks, train=train)
    if self.asks_boxes or self.config.foretell:
      tokens = self.eyes(batch, train=train)
    if self.asks_boxes:
      student |= self.box_nouns(tokens, batch, banks)
    if self.config.foretell:
      student |= self.foretelling(tokens, batch)
    if not self.config.teacher_branch:
      return student
    return student | self.teacher_branch(batch, banks)

  def predict(
    self,
    batch: Mapping[str, Array],
    banks: Mapping[str, Array],
    *,
    train: bool = False,
  ) -> dict[str, Array]:
    return self.student(
      self.eyes(batch, train=train),
      batch[schema.VERB],
      batch[schema.ROLES],
      batch[schema.ROLE_MASK],
      banks,
      train=train,
    )
