"""MIPD of interactions: pairs where `mipd.Mipd` has roles."""

from collections.abc import Mapping

from jaxtyping import Array

from input_pipeline import schema
from mipd_jax.models import eyes
from mipd_jax.models.mipd import Mipd
from mipd_jax.models.pair_student import PairStudent
from mipd_jax.models.pair_teacher import PairTeacherBranch


class PairMipd(Mipd):
  """Batches with pairs to the outputs of `models.outputs`; see `Mipd`."""

  def setup(self):
    self.eyes = eyes.of(self.config)
    self.student = PairStudent(
      self.config,
      self.sizes,
      self.dtype,
      self.absorbed,
      frozen=not self.eyes.trained,
    )
    if self.config.teacher_branch:
      self.teacher_branch = PairTeacherBranch(
        self.config, self.dtype, self.absorbed
      )

  def predict(
    self,
    batch: Mapping[str, Array],
    banks: Mapping[str, Array],
    *,
    train: bool = False,
  ) -> dict[str, Array]:
    pairs = {key: batch[key] for key in schema.PAIR_ANNOTATIONS if key in batch}
    tokens = self.eyes(batch, train=train)
    return self.student(tokens, pairs, banks, train=train)
