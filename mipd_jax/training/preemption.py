"""Notices Ctrl-C and SIGTERM, so that the loop can save and leave."""

import contextlib
from collections.abc import Iterator

import jax
from absl import logging

from input_pipeline.io.signals import HEEDED

# Seconds from the signal to the end of the step, or of the evaluation, that is
# under way. Then the process ends without saving: what came after the latest
# checkpoint is done again. Platforms that take a machine back give about 30.
GRACE = 10.0


class Preemption:
  """What the loop knows of signals.

  Attributes:
    requested: whether one came: the loop saves and leaves.
  """

  def __init__(self):
    self.requested = False

  @contextlib.contextmanager
  def heeded(self) -> Iterator["Preemption"]:
    """Inside, the first signal sets `requested`; a second stops at once."""
    # Of several processes one may have to wait for the others to notice.
    grace = GRACE if jax.process_count() == 1 else None
    with HEEDED.handled(self._notice, grace):
      yield self

  def saving(self) -> None:
    """The loop leaves: saving takes the time that it takes."""
    HEEDED.see_to()

  def _notice(self, number: int) -> None:
    del number
    self.requested = True
    logging.info("A signal: saving and leaving after this step.")
