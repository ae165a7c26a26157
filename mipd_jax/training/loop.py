"""The training loop. The order within one turn is fixed:

  1. batches of the next steps, a pure function of (seed, step), up to the
     step where one of 3 to 5 is due
  2. these steps on the devices in one program; their metrics stay there
  3. every `log_every`, and before 4 and 5: fetch metrics, stop if one is not
     finite, write them
  4. every `eval_every` and at the last step, but not for a signal: dev
     evaluation, best checkpoint
  5. every `checkpoint_every`, at the last step and at a signal: checkpoint

so a killed run repeats what came after its last checkpoint, bit for bit, and
nothing else. All processes do all of it together; only process 0 writes the
metrics. At a signal (Ctrl-C or SIGTERM) the loop saves and ends.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from absl import logging

from input_pipeline import stream
from input_pipeline.io.commands import HEEDED
from input_pipeline.io.progress import Progress
from mipd_jax.config import Config
from mipd_jax.devices import distributed
from mipd_jax.feeding.feeds import Chunk
from mipd_jax.models.mipd import Mipd
from mipd_jax.training.checkpoints import Checkpoints
from mipd_jax.training.divergence import check_finite
from mipd_jax.training.programs import Program
from mipd_jax.training.state import TrainState, learning_rate
from mipd_jax.training.writers import make_writer

# Steps between two exchanges of signals among processes, if nothing else
# synchronises them.
_AGREE_EVERY = 50
# Chunks sent to the devices before the oldest has to be done.
_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class TrainInputs:
  """What a run is trained on.

  Attributes:
    source: training examples, with the features that the losses need, as the
      cache stores them or decoded.
    names: image name of each.
    banks: text embeddings, log prior and trained verbs, on the host.
    dev: evaluates a state on the dev split; returns curves by name and one
      score, by which the best checkpoint is chosen. Unseen classes do not
      enter that score.
  """

  source: stream.Source
  names: Sequence[str]
  banks: Mapping[str, np.ndarray]
  dev: Callable[[TrainState], tuple[dict[str, float], float]]


def total_steps(config: Config, num_examples: int) -> int:
  """Steps of the whole run; epochs are rounded up to whole steps."""
  if config.train.steps:
    return config.train.steps
  return -(-config.train.epochs * num_examples // config.train.batch_size)


def chunks(first: int, stop: int, length: int, *every: int) -> Iterator[Chunk]:
  """Yields the steps first..stop-1 as chunks of at most `length`.

  None reaches across a multiple of one of `every`; a 0 there cuts nothing.
  """
  while first < stop:
    multiples = [(first // n + 1) * n for n in every if n]
    end = min(stop, first + length, *multiples)
    yield Chunk(first, end - first)
    first = end


def program_length(turns: Sequence[Chunk]) -> int:
  """Batches that one program takes: enough for every chunk, and at least two.

  With two or more, XLA was seen to compile the same step for any number, bit
  for bit; with one it drops the indexing and rounds differently.
  """
  return max(2, *(chunk.count for chunk in turns))


# Seconds that the current step or evaluation may take after a signal. Then the
# process ends without saving: the next run repeats what came after the latest
# checkpoint. Cloud platforms announce a preemption about 30 seconds ahead.
SAVE_GRACE = 10.0


class Preemption:
  """The signals that the loop got.

  Attributes:
    requested: whether one came; the loop then saves and ends.
  """

  def __init__(self):
    self.requested = False

  @contextlib.contextmanager
  def heeded(self) -> Iterator["Preemption"]:
    """Inside, the first signal sets `requested`; a second stops at once."""
    # One of several processes may have to wait for the others to notice.
    grace = SAVE_GRACE if jax.process_count() == 1 else None
    with HEEDED.handled(self._notice, grace):
      yield self

  def saving(self) -> None:
    """Lifts the time limit: the loop saves now and ends."""
    HEEDED.see_to()

  def _notice(self, number: int) -> None:
    del number
    self.requested = True
    logging.info("A signal: saving and leaving after this step.")


def train(
  config: Config,
  model: Mipd,
  inputs: TrainInputs,
  mesh: jax.sharding.Mesh,
  checkpoints: Checkpoints,
) -> tuple[TrainState, bool]:
  """Trains to the last step, or until a signal, from the latest checkpoint.

  Returns:
    The state, and whether the run is complete.

  Raises:
    DivergedError: a loss is not finite.
  """
  steps = total_steps(config, inputs.source.num_examples)
  program = Program(config, model, inputs.source, inputs.banks, mesh, steps)
  state = checkpoints.restore_latest(program.state)
  first = 0 if state is None else int(state.step)
  if first >= steps:
    return state, True
  if state is None:
    state = program.initial_state()
  else:
    logging.info("Resuming at step %d of %d.", first, steps)
  turns = list(
    chunks(first, steps, config.train.steps_per_dispatch, *_due_every(config))
  )
  length = program_length(turns)
  with program.opening() as ready:
    step_fn = program.compile(length)  # meanwhile the features are read
    feed = ready()
  batches = feed.train(turns, seed=config.seed, length=length)
  run = _Run(config, inputs, checkpoints, steps, first)
  progress = Progress("train", steps, "steps", done=first)
  with Preemption().heeded() as preemption, run, progress:
    for chunk, batch in zip(turns, batches, strict=True):
      count = np.int32(chunk.count)
      state, metrics = step_fn(state, batch, count, program.banks)
      done = chunk.first + chunk.count
      # Read once: a signal during `after_steps` waits for the next turn, or
      # the run would end without saving.
      stop = _agreed_stop(config, done, preemption.requested)
      run.after_steps(
        chunk, state, metrics, stop=stop, saving=preemption.saving
      )
      progress.advance(chunk.count, note=run.note)
      if stop and done < steps:
        logging.warning("Saved at step %d of %d.", done, steps)
        return state, False
  return state, True


def _due_every(config: Config) -> tuple[int, ...]:
  """Intervals, in steps, at which chunks end; 0 is never."""
  train = config.train
  every = (train.log_every, train.eval_every, train.checkpoint_every)
  return (*every, _agree_every(config))


def _agreed_stop(config: Config, done: int, requested: bool) -> bool:
  """Whether to stop: the same answer on all processes at the same step."""
  if jax.process_count() == 1:
    return requested
  due = done % _agree_every(config) == 0
  return due and distributed.any_of(requested)


def _agree_every(config: Config) -> int:
  """Steps between two exchanges of signals; 0 for a single process."""
  if jax.process_count() == 1:
    return 0
  return config.train.log_every or _AGREE_EVERY


class _Run:
  """What happens between the steps: metrics, dev scores, checkpoints."""

  def __init__(self, config, inputs, checkpoints, steps, first):
    self._config, self._inputs = config, inputs
    self._checkpoints, self._steps = checkpoints, steps
    self._pending: list[tuple[Chunk, dict[str, jax.Array]]] = []
    self._learning_rate = learning_rate(config.train, steps)
    self._writer = make_writer(checkpoints.workdir, first)
    self.note = ""

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    self._checkpoints.wait()
    self._writer.flush()
    self._writer.close()

  def after_steps(
    self,
    chunk: Chunk,
    state: TrainState,
    metrics: dict[str, jax.Array],
    *,
    stop: bool,
    saving: Callable[[], None],
  ) -> None:
    """Does 3 to 5 of the loop's order.

    Args:
      chunk: the steps just sent to the devices.
      state: after them.
      metrics: name -> float32 [length], of which the first chunk.count are
        used.
      stop: whether a signal asks to save and end.
      saving: called before the save that a signal asks for.
    """
    train = self._config.train
    done = chunk.first + chunk.count
    self._pending.append((chunk, metrics))
    if len(self._pending) > _IN_FLIGHT:  # or batches pile up on the devices
      jax.block_until_ready(self._pending[-1 - _IN_FLIGHT][1])

    def due(every: int) -> bool:
      return bool(every) and done % every == 0

    complete = done == self._steps
    ending = stop or complete
    evaluate = complete or due(train.eval_every)
    save = ending or due(train.checkpoint_every)
    if evaluate or save or due(train.log_every):
      self._flush(done)
    if evaluate:
      self._evaluate(done, state)
    if stop:
      saving()
    if save:
      self._checkpoints.save(state)

  def _flush(self, done):
    """Fetches the metrics of all steps since the last time: one sync."""
    fetched = [
      (chunk.first + i, {name: x[i] for name, x in metrics.items()})
      for chunk, metrics in jax.device_get(self._pending)
      for i in range(chunk.count)
    ]
    for step, metrics in fetched:
      check_finite(
        step,
        metrics,
        seed=self._config.seed,
        names=self._inputs.names,
        batch_size=self._config.train.batch_size,
      )
    if fetched:
      means = {
        _curve(name): float(np.mean([metrics[name] for _, metrics in fetched]))
        for name in fetched[0][1]
      }
      means["learning_rate"] = float(self._learning_rate(done - 1))
      self._writer.write_scalars(done, means)
      self.note = f"loss {means['loss/total']:.3f}"
    self._pending = []

  def _evaluate(self, done, state):
    scalars, selection = self._inputs.dev(state)
    self._writer.write_scalars(done, scalars | {"dev/selection": selection})
    self._checkpoints.save_best(state, selection)


def _curve(metric: str) -> str:
  """Name of a metric's curve: "grad_norm", or "loss/NAME" for a term."""
  return metric if metric == "grad_norm" else f"loss/{metric}"
