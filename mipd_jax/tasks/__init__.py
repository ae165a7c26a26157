"""What is learnt: situations (Ov-SWiG), or interactions (HICO-DET).

The stages, the loop, the step, the cache and the feeds are one for both. What
differs is asked of one object, `task.Task`, that `config.task` names.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from mipd_jax.config import Config
  from mipd_jax.tasks.task import Task


def of(config: "Config") -> "Task":
  """The task that a run learns; its modules are imported here, once named."""
  from mipd_jax.tasks.interactions import Interactions
  from mipd_jax.tasks.situations import Situations

  tasks = {"situations": Situations, "interactions": Interactions}
  return tasks[config.task](config)
