"""What is learnt: situations (Ov-SWiG), or interactions (HICO-DET).

Both share the stages, the loop, the step, the cache and the feeds. What
differs is in one object, `task.Task`, which `config.task` names.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from mipd_jax.config import Config
  from mipd_jax.tasks.task import Task


def classes() -> "Mapping[str, type[Task]]":
  """The tasks by their names; their modules are imported only here."""
  from mipd_jax.tasks.interactions import Interactions
  from mipd_jax.tasks.situations import Situations

  return {"situations": Situations, "interactions": Interactions}


def of(config: "Config") -> "Task":
  """The task that a run learns."""
  return classes()[config.task](config)
