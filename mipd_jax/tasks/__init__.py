"""What is learnt: situations (Ov-SWiG), or interactions (HICO-DET).

Both share the stages, the loop, the step, the cache and the feeds. What
differs is in one object, `task.Task`, which `config.task` names.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from mipd_jax.config import Config
  from mipd_jax.tasks.task import Task


def of(config: "Config") -> "Task":
  """The task that a run learns; the tasks' modules are imported only here."""
  from mipd_jax.tasks.interactions import Interactions
  from mipd_jax.tasks.situations import Situations

  tasks = {"situations": Situations, "interactions": Interactions}
  return tasks[config.task](config)
