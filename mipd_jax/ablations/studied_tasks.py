"""What a study needs of a task: its figures, and features of some tasks.

One object per task. Situations have verbs that can be held out of training, a
bias between trained and untrained verbs that these choose, and an oracle;
interactions have their scores. A new task gets a class here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import numpy as np
from jaxtyping import Int

from input_pipeline import schema
from input_pipeline.small_world import draw_world
from input_pipeline.small_world.situations import oracle
from mipd_jax import tasks
from mipd_jax.ablations import holdout, run_scores
from mipd_jax.ablations.holdout import HeldOut
from mipd_jax.ablations.run_scores import Figures
from mipd_jax.config import Config
from mipd_jax.devices import compilation
from mipd_jax.losses import banks as bank_lib
from mipd_jax.metrics import hico_det_scores
from mipd_jax.models.config import Sizes
from mipd_jax.tasks.prepared import Prepared
from mipd_jax.tasks.task import Found, Task

# The number of roles is rounded up to a multiple of this.
_ROLES = 64


class StudiedTask(Protocol):
  """The task of a run on the data of its world.

  Attributes:
    holds_out: whether it has `held_out` and `selected` too.
    task: of the run.
  """

  holds_out: ClassVar[bool]
  task: Task

  def __init__(self, task: Task, prepared: Prepared): ...

  def model(self) -> nn.Module:
    """The model of the run; the same in worlds of nearly the same sizes."""
    ...

  def banks(self, rows: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
    """The banks for `model`.

    Args:
      rows: rows of the train split that the run learns from.
    """
    ...

  def reported(
    self, evaluation: Found, split: str, bias: float | None
  ) -> dict[str, Any]:
    """Figures of a whole split.

    Args:
      evaluation: from `Task.evaluate`.
      split: the evaluated split.
      bias: chosen by students with verbs held out; None if there are none.

    Returns:
      "figures", flat, percent or None; and what else results keep.
    """
    ...

  def bounds(self) -> dict[str, Figures]:
    """Bounds of the world that need no model, by name."""
    ...


class HoldingOut(StudiedTask, Protocol):
  """A task whose students can be trained with verbs held out."""

  def held_out(self, count: int) -> HeldOut:
    """Draws the verbs; see `holdout.draw`."""
    ...

  def selected(
    self, evaluation: Found, rows: Int[np.ndarray, "n"], held_out: HeldOut
  ) -> dict[str, Any]:
    """Figures of dev images, of a student without the held-out verbs.

    Args:
      evaluation: from `Task.evaluate`.
      rows: the evaluated rows of the dev split.
      held_out: the verbs.

    Returns:
      "figures", and "curve": accuracy by bias, which chooses one.
    """
    ...


class StudiedSituations:
  """See `HoldingOut`."""

  holds_out = True

  def __init__(self, task: Task, prepared: Prepared):
    self.task = task
    self._prepared = prepared

  @property
  def _sizes(self) -> Sizes:
    """Sizes of the labels, with the number of roles rounded up.

    Small worlds differ only in their number of roles; rounded, one program
    serves them all. No frame names an added role.
    """
    sizes = self._prepared.sizes
    roles = -(-sizes.num_roles // _ROLES) * _ROLES
    return dataclasses.replace(sizes, num_roles=roles)

  def model(self) -> nn.Module:
    return self.task.model(self._prepared).clone(sizes=self._sizes)

  def banks(self, rows: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
    banks = holdout.banks_of(
      _training_banks(self.task, self._prepared), self._verbs("train")[rows]
    )
    added = self._sizes.num_roles - len(banks["role_text"])
    for name in ("role_text", bank_lib.ROLE_CANDIDATES):
      banks[name] = np.pad(banks[name], [(0, added), (0, 0)])
    return banks

  def reported(
    self, evaluation: Found, split: str, bias: float | None
  ) -> dict[str, Any]:
    prepared = self._prepared
    return run_scores.of_report(
      self.task.summary(prepared, split, evaluation),
      evaluation.verb_scores,
      self._verbs(split),
      prepared.groups,
      prepared.train_images > 0,
      bias,
    )

  def bounds(self) -> dict[str, Figures]:
    """For a small world, an oracle that reads every attribute."""
    world = self.task.config.dataset.world
    if world is None:
      return {}
    accuracy = oracle.verb_accuracy(draw_world(world))
    return {"oracle": run_scores.of_oracle(accuracy)}

  def held_out(self, count: int) -> HeldOut:
    return holdout.draw(self._prepared.groups, count)

  def selected(
    self, evaluation: Found, rows: Int[np.ndarray, "n"], held_out: HeldOut
  ) -> dict[str, Any]:
    verb = self._verbs("dev")[rows]
    return run_scores.of_selection(evaluation.verb_scores, verb, held_out)

  def _verbs(self, split: str) -> Int[np.ndarray, "n"]:
    """The true verb of each image."""
    return self._prepared.cache.split(split, ()).annotations[schema.VERB]


class StudiedInteractions:
  """See `StudiedTask`."""

  holds_out = False

  def __init__(self, task: Task, prepared: Prepared):
    self.task = task
    self._prepared = prepared

  def model(self) -> nn.Module:
    return self.task.model(self._prepared)

  def banks(self, rows: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
    del rows  # all of them
    return dict(_training_banks(self.task, self._prepared))

  def reported(
    self, evaluation: Found, split: str, bias: float | None
  ) -> dict[str, Any]:
    """The scores by name, and the detector of their boxes."""
    del bias  # nothing is held out that could choose one
    summary = self.task.summary(self._prepared, split, evaluation)
    return {
      "figures": {name: summary[name] for name in hico_det_scores.NAMES},
      "detector": self._prepared.dataset.detector(split),
    }

  def bounds(self) -> dict[str, Figures]:
    return {}


def _training_banks(task: Task, prepared: Prepared) -> dict[str, Any]:
  config = task.config
  dtype = compilation.compute_dtype(config.train.dtype)
  return prepared.training_banks(config.model, dtype)


_KINDS: Mapping[str, type[StudiedTask]] = {
  "situations": StudiedSituations,
  "interactions": StudiedInteractions,
}


def of(config: Config, prepared: Prepared) -> StudiedTask:
  """The task of a run, on its data."""
  return _KINDS[config.task](tasks.of(config), prepared)


def holds_out(config: Config) -> bool:
  """Whether students of a run's task can have verbs held out."""
  return _KINDS[config.task].holds_out
