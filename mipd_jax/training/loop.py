"""The training loop. The order of things in one turn is fixed:

  1. batch of `step`, a pure function of (seed, step)
  2. one step on the devices; its metrics stay there
  3. every `log_every`: fetch metrics, stop if one is not finite, write them
  4. every `eval_every`: dev evaluation, best checkpoint
  5. every `checkpoint_every`, at the end and at SIGTERM: checkpoint

so a run that was killed repeats what came after its last checkpoint, bit for
bit, and nothing else.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from input_pipeline import stream
from input_pipeline.progress import Progress
from mipd_jax import sharding
from mipd_jax.config import Config
from mipd_jax.metrics import scores
from mipd_jax.models.mipd import Mipd
from mipd_jax.training import step as step_lib
from mipd_jax.training.checkpoints import Checkpoints
from mipd_jax.training.divergence import check_finite
from mipd_jax.training.optimizer import learning_rate, make_optimizer
from mipd_jax.training.preemption import Preemption
from mipd_jax.training.state import (
  TrainState,
  init_state,
  state_shapes,
)
from mipd_jax.training.writers import make_writer

Summary = Mapping[str, Any]
# Of the dev scores, those that are worth a curve; all go into selection.
_DEV_SCORES = ("verb_top1", "verb_top5", "value_gt", "grnd_gt")


@dataclasses.dataclass(frozen=True)
class TrainInputs:
  """What a run is trained on.

  Attributes:
    source: training examples, with the features that the losses need.
    names: image name of each.
    banks: text embeddings, log prior and trained verbs, on the host.
    dev: evaluates a state on the dev split: scores by group.
    identity: what checkpoints must share with the run (see Checkpoints).
  """

  source: stream.Source
  names: Sequence[str]
  banks: Mapping[str, np.ndarray]
  dev: Callable[[TrainState], Summary]
  identity: Mapping[str, Any]


def total_steps(config: Config, num_examples: int) -> int:
  """Steps of the whole run; epochs are rounded up to whole steps."""
  if config.train.steps:
    return config.train.steps
  return -(-config.train.epochs * num_examples // config.train.batch_size)


def initial_state(
  config: Config,
  model: Mipd,
  source: stream.Source,
  banks: Mapping[str, jax.Array],
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """A fresh state on the mesh."""
  parts = _state_parts(config, model, source, banks)
  return init_state(*parts, config.seed, sharding.replicated(mesh))


def restorable_state(
  config: Config,
  model: Mipd,
  source: stream.Source,
  banks: Mapping[str, jax.Array],
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Shapes and places that a checkpoint is read into; nothing is computed."""
  parts = _state_parts(config, model, source, banks)
  return state_shapes(*parts, sharding.replicated(mesh))


def _state_parts(config, model, source, banks):
  steps = total_steps(config, source.num_examples)
  optimizer = make_optimizer(config.train, steps)
  return model, optimizer, example_batch(source), banks


def train(
  config: Config,
  model: Mipd,
  inputs: TrainInputs,
  mesh: jax.sharding.Mesh,
  checkpoints: Checkpoints,
) -> tuple[TrainState, bool]:
  """Trains to the last step, or until SIGTERM, from the latest checkpoint.

  Returns:
    The state, and whether the run is complete.

  Raises:
    DivergedError: a loss is not finite.
  """
  steps = total_steps(config, inputs.source.num_examples)
  banks = jax.device_put(dict(inputs.banks), sharding.replicated(mesh))
  setting = (config, model, inputs.source, banks, mesh)
  first = checkpoints.latest_step() or 0
  if first:
    state = checkpoints.restore_latest(restorable_state(*setting))
    logging.info("Resuming at step %d of %d.", first, steps)
  else:
    state = initial_state(*setting)
  run = _Run(config, inputs, checkpoints, steps, first)
  optimizer = make_optimizer(config.train, steps)
  step_fn = step_lib.compile_step(model, config.loss, optimizer, config.seed)
  batches = stream.train_batches(
    inputs.source,
    seed=config.seed,
    batch_size=config.train.batch_size,
    start_step=first,
    num_steps=steps,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  progress = Progress("train", steps, "steps", done=first)
  with Preemption() as preemption, run, progress:
    for done, batch in enumerate(batches, start=first + 1):
      device_batch = sharding.put_batch(mesh, batch)
      state, metrics = step_fn(state, device_batch, banks)
      # Read once: a signal that comes during `after_step` waits a step, or
      # the run would leave without having saved.
      stop = preemption.requested
      run.after_step(done, state, metrics, stop=stop)
      progress.advance(note=run.note)
      if stop and done < steps:
        logging.warning(
          "Stopped by a signal at step %d of %d; saved. The same command "
          "continues.",
          done,
          steps,
        )
        return state, False
  return state, True


class _Run:
  """What happens beside the steps: metrics, dev scores, checkpoints."""

  def __init__(self, config, inputs, checkpoints, steps, first):
    self._config, self._inputs = config, inputs
    self._checkpoints, self._steps = checkpoints, steps
    self._pending: list[dict[str, jax.Array]] = []
    self._first_pending = first
    self._learning_rate = learning_rate(config.train, steps)
    self._writer = make_writer(checkpoints.workdir, first)
    self.note = ""

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    self._checkpoints.wait()
    self._writer.flush()
    self._writer.close()

  def after_step(self, done, state, metrics, *, stop):
    """Steps 3 to 5 of the loop's order."""
    train = self._config.train
    self._pending.append(metrics)
    last = stop or done == self._steps

    def due(every):
      return last or (every and done % every == 0)

    evaluate = done == self._steps or (
      train.eval_every and done % train.eval_every == 0
    )
    save = due(train.checkpoint_every)
    if evaluate or save or due(train.log_every):
      self._flush(done)
    if evaluate:
      self._evaluate(done, state)
    if save:
      self._checkpoints.save(state)

  def _flush(self, done):
    """Fetches the metrics of all steps since the last time: one sync."""
    fetched = jax.device_get(self._pending)
    for offset, metrics in enumerate(fetched):
      check_finite(
        self._first_pending + offset,
        metrics,
        seed=self._config.seed,
        names=self._inputs.names,
        batch_size=self._config.train.batch_size,
      )
    if fetched:
      means = {
        f"loss/{name}" if name != "grad_norm" else name: float(
          np.mean([metrics[name] for metrics in fetched])
        )
        for name in fetched[0]
      }
      means["learning_rate"] = float(self._learning_rate(done - 1))
      self._writer.write_scalars(done, means)
      self.note = f"loss {means['loss/total']:.3f}"
    self._pending, self._first_pending = [], done

  def _evaluate(self, done, state):
    summary = self._inputs.dev(state)
    selection = scores.selection_score(summary)
    scalars = {
      f"dev/{group}/{name}": value
      for group in ("seen", "rare", "unseen")
      for name, value in summary[group].items()
      if name in _DEV_SCORES
    }
    self._writer.write_scalars(done, scalars | {"dev/selection": selection})
    self._checkpoints.save_best(state, selection)


def example_batch(
  source: stream.Source,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and dtypes of a batch of one."""
  batch = next(stream.eval_batches(source, batch_size=1))
  return {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in batch.items()}
