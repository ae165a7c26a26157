"""Checkpoints by Orbax: the latest few to resume from, the best to use.

Two managers, because one that keeps the best would throw away the latest:
`checkpoints/` holds the last `keep` states, `best/` the parameters with the
two highest selection scores (of seen and rare dev images, never unseen ones).
A file `run.json` says which run they belong to. All processes save and restore
together, each its own part; the next run may have other processes and devices.

Every array has a digest (`digests`), which is checked whenever a checkpoint is
read. A damaged step is named and the one before it is used; a run that
continues moves the damaged one to `damaged/`.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from input_pipeline.io import atomic, json_files, paths
from input_pipeline.io.errors import InputError
from mipd_jax.devices import distributed
from mipd_jax.training import digests
from mipd_jax.training.state import TrainState

LATEST, BEST, RUN = "checkpoints", "best", "run.json"
# Where a run moves the damaged steps that it skipped.
DAMAGED = "damaged"
# Run identity of parameters that were not trained here.
IMPORTED = "imported"
_RECORD = "mipd_jax"  # key of Orbax's metadata of a step
_METADATA = "_CHECKPOINT_METADATA"
_KEEP_BEST = 2
_REMEDY = "choose another --workdir, or delete this one to train from the start"
_TRAIN = "train first: --mode=train or --mode=all"


@dataclasses.dataclass(frozen=True)
class Best:
  """Parameters to use.

  Attributes:
    params: the requested parameters, on the devices.
    step: their step.
    damaged: steps with a higher selection that could not be read.
  """

  params: dict[str, Any]
  step: int
  damaged: tuple[int, ...] = ()


class Checkpoints:
  """The checkpoints of one work directory, for a run that continues it.

  Args:
    workdir: made when absent.
    identity: nested plain values that a run must share with the run that
      wrote the checkpoints (model, losses, optimizer, data).
    keep: how many of the latest states stay.

  Raises:
    InputError: the directory holds checkpoints of another or an unknown run, or
      only damaged ones; the message names the fields that differ, or the steps.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    identity: Mapping[str, Any],
    keep: int = 2,
  ):
    self.workdir = paths.absolute(workdir)
    self.workdir.mkdir(parents=True, exist_ok=True)
    distributed.agreed(lambda: check_identity(self.workdir, identity))
    distributed.agreed(lambda: self._begin(identity))
    self._latest = ocp.CheckpointManager(
      self.workdir / LATEST,
      options=ocp.CheckpointManagerOptions(max_to_keep=keep),
    )
    self._best = ocp.CheckpointManager(
      self.workdir / BEST,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=_KEEP_BEST,
        best_fn=lambda metrics: metrics["selection"],
        best_mode="max",
      ),
    )

  def save(self, state: TrainState) -> None:
    """Saves the state under its step, in the background."""
    step = int(state.step)
    if step not in self._latest.all_steps():
      self._one_at_a_time(self._best)
      self._latest.save(
        step,
        args=ocp.args.StandardSave(state),
        custom_metadata={_RECORD: digests.record(state)},
      )

  def save_best(self, state: TrainState, selection: float) -> None:
    """Saves the parameters if they are among the best so far."""
    step = int(state.step)
    if step not in self._best.all_steps():
      self._one_at_a_time(self._latest)
      kept = {"step": state.step, "params": state.params}
      self._best.save(
        step,
        args=ocp.args.StandardSave(kept),
        metrics={"selection": selection},
        custom_metadata={_RECORD: digests.record(kept, selection=selection)},
      )

  def _one_at_a_time(self, other: ocp.CheckpointManager) -> None:
    """Waits for the other manager's save if there are several processes.

    Orbax gives the barriers of its background threads the same names in all
    managers, so two saves at once break each other.
    """
    if jax.process_count() > 1:
      other.wait_until_finished()

  def latest_step(self) -> int | None:
    """The newest step, whole or not."""
    return self._latest.latest_step()

  def best_step(self) -> int | None:
    """The step with the highest selection, whole or not."""
    return self._best.best_step()

  def restore_latest(self, like: TrainState) -> TrainState | None:
    """The newest whole state, placed as `like`; None if there is no checkpoint.

    Raises:
      InputError: it does not fit `like`, or all are damaged.
    """
    damaged: dict[int, str] = {}
    for step in sorted(self._latest.all_steps(), reverse=True):
      state, wrong = self._read_whole(step, like)
      if wrong is None:
        self._pass_over(damaged, step)
        return state
      damaged[step] = wrong
    if damaged:
      raise _all_damaged(self.workdir / LATEST, damaged)
    return None

  def _read_whole(self, step: int, like: Any) -> tuple[Any, str | None]:
    """The state of a step, or its fault; a collective call."""
    folder = self.workdir / LATEST / str(step)
    record = distributed.agreed(lambda: _fitting_record(folder, like))
    if isinstance(record, str):
      return None, record

    def restore():
      target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
      return self._latest.restore(step, args=ocp.args.StandardRestore(target))

    return _checked(restore, record)

  def _pass_over(self, damaged: Mapping[int, str], used: int) -> None:
    """Says which steps are damaged and moves them out of the way."""
    if not damaged:
      return
    for step, wrong in damaged.items():
      logging.warning(
        "The checkpoint of step %d in %s is damaged: %s. Going on from step "
        "%d; the damaged one is moved to %s.",
        step,
        self.workdir,
        wrong,
        used,
        self.workdir / DAMAGED,
      )
      if distributed.is_first():
        _set_aside(self.workdir, LATEST, step)
    distributed.barrier("damaged checkpoints moved")
    self._latest.reload()

  def restore_best_params(self, like: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_best`, the parameters alone."""
    return read_best(self.workdir, like).params

  def wait(self) -> None:
    """Returns when everything is on disk."""
    self._latest.wait_until_finished()
    self._best.wait_until_finished()

  def close(self) -> None:
    self._latest.close()
    self._best.close()

  def _begin(self, identity: Mapping[str, Any]) -> None:
    """Writes run.json; moves best steps aside that Orbax could not open."""
    if not distributed.is_first():
      return
    for step in _steps(self.workdir / BEST):
      record = _record(self.workdir / BEST / str(step))
      if isinstance(record, str):
        logging.warning(
          "The best checkpoint of step %d in %s is damaged: %s. It is moved "
          "to %s.",
          step,
          self.workdir,
          record,
          self.workdir / DAMAGED,
        )
        _set_aside(self.workdir, BEST, step)
    with atomic.replacing(self.workdir / RUN) as partial:
      partial.write_text(json.dumps(identity, indent=2, sort_keys=True) + "\n")


def check_identity(
  workdir: str | os.PathLike[str], identity: Mapping[str, Any]
) -> None:
  """Raises InputError if the directory has checkpoints of another run.

  Imported parameters (`import_reference`) go with any run; reading them shows
  whether they fit.
  """
  workdir = paths.absolute(workdir)
  places = {name: _steps(workdir / name) for name in (LATEST, BEST)}
  if not any(places.values()):
    return
  path = workdir / RUN
  if not path.exists():
    raise InputError(
      f"{workdir} has checkpoints but no {RUN}, which says what run they are "
      "of",
      f"copy {RUN} there too, or {_REMEDY}",
    )
  saved = json_files.read(path, dict, f"copy {RUN} again, or {_REMEDY}")
  if IMPORTED in saved and not places[LATEST]:
    return
  plain = json.loads(json.dumps(identity))
  if differ := sorted(_differences(saved, plain, "")):
    raise InputError(
      f"{workdir} holds checkpoints of another run; these differ "
      f"(there -> here): {'; '.join(differ)}",
      _REMEDY,
    )


def read_best(workdir: str | os.PathLike[str], like: Mapping[str, Any]) -> Best:
  """Parameters of the best checkpoint that is whole; writes nothing.

  Args:
    workdir: of a run, whichever it was.
    like: nested shapes with their shardings, such as the student's alone:
      evaluation needs no teacher branch.

  Raises:
    InputError: there is no checkpoint, it does not fit, or all are damaged.
  """
  workdir = paths.absolute(workdir)
  wanted = {"params": dict(like)}
  damaged: dict[int, str] = {}
  candidates = []  # selection, step, record
  for step in _steps(workdir / BEST):
    record = _fitting_record(workdir / BEST / str(step), wanted)
    if isinstance(record, str):
      damaged[step] = record
    else:
      candidates.append((record["selection"], step, record))
  for _, step, record in sorted(candidates, key=lambda c: c[:2], reverse=True):
    # The same step among the latest is used only if its arrays are the same.
    for place in (BEST, LATEST):
      folder = workdir / place / str(step)
      arrays, wrong = _checked(lambda f=folder: _read(f, wanted), record)
      if wrong is None:
        _warn_of(workdir, damaged, step)
        passed = tuple(sorted(set(damaged) - {step}))
        return Best(arrays["params"], step, passed)
      damaged.setdefault(step, wrong)
  if damaged:
    raise _all_damaged(workdir / BEST, damaged)
  raise InputError(f"{workdir} has no checkpoint", _TRAIN)


def _warn_of(workdir, damaged: Mapping[int, str], used: int) -> None:
  for step, wrong in damaged.items():
    instead = (
      f"the same step in {LATEST}/" if step == used else f"step {used} instead"
    )
    logging.warning(
      "The best checkpoint of step %d in %s is damaged: %s. Using %s.",
      step,
      workdir,
      wrong,
      instead,
    )


def _read(folder: paths.AnyPath, like: Mapping[str, Any]) -> dict[str, Any]:
  """The arrays of one step that `like` names; others stay unread."""
  target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  arguments = ocp.args.PyTreeRestore(
    target,
    restore_args=ocp.checkpoint_utils.construct_restore_args(target),
    partial_restore=True,
  )
  # A manager can restore whole states only.
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    return reader.restore(folder / "default", arguments)


def _checked(restore, record: Mapping[str, Any]) -> tuple[Any, str | None]:
  """What `restore` returns, or its fault; a collective call."""
  arrays, wrong = None, None
  try:
    arrays = restore()
  except Exception as error:  # Orbax and TensorStore raise many kinds
    if isinstance(error, MemoryError):
      raise
    wrong = " ".join(str(error).split())[:200] or type(error).__name__
  if distributed.all_of(wrong is None):
    # For an array that a checkpoint lacks, Orbax returns its shape.
    lost = [
      name
      for name, x in digests.named(arrays).items()
      if isinstance(x, jax.ShapeDtypeStruct)
    ]
    differ = lost or digests.differing(arrays, record)
    if differ:
      wrong = f"{len(differ)} of its arrays, {differ[0]} first, "
      wrong += "are missing" if lost else "are not as they were saved"
  elif wrong is None:
    wrong = "another process could not read it"
  return (None, wrong) if wrong else (arrays, None)


def _fitting_record(folder: paths.AnyPath, like: Any) -> digests.Record | str:
  """The digests of a step, or what is wrong with them.

  Raises:
    InputError: its record is whole, but its arrays are not those of `like`.
  """
  record = _record(folder)
  if isinstance(record, str):
    return record
  if reason := digests.misfit(like, record):
    raise InputError(
      f"the checkpoint of step {folder.name} in {folder.parent.parent} does "
      f"not fit the model of this config: {reason}",
      _REMEDY,
    )
  return record


def _record(folder: paths.AnyPath) -> digests.Record | str:
  """The digests of a step, or what is wrong with them."""
  form = {"custom_metadata": {_RECORD: dict}}
  try:
    content = json_files.read(folder / _METADATA, form)
  except InputError as error:
    return error.problem
  record = content["custom_metadata"][_RECORD]
  return digests.problem(record) or _wrong_metrics(folder, record) or record


def _wrong_metrics(folder: paths.AnyPath, record: digests.Record) -> str | None:
  """Orbax keeps the selection in its own file, which must say the same."""
  if "selection" not in record:
    return None
  try:
    metrics = json_files.read(folder / "metrics" / "metrics", dict)
  except InputError as error:
    return error.problem
  same = metrics.get("selection") == record["selection"]
  return None if same else "its selection score is not as it was saved"


def _steps(folder: paths.AnyPath) -> list[int]:
  """Steps that have a finished folder, ascending."""
  if not folder.is_dir():
    return []
  return sorted(
    int(path.name) for path in folder.iterdir() if path.name.isdecimal()
  )


def _set_aside(workdir: paths.AnyPath, place: str, step: int) -> None:
  """Moves a step to `damaged/`, under a free name."""
  target = next(p for p in _names(workdir, place, step) if not p.exists())
  target.parent.mkdir(exist_ok=True)
  (workdir / place / str(step)).rename(target)


def _names(workdir, place: str, step: int) -> Iterator[paths.AnyPath]:
  number = 0
  while True:
    more = f"-{number}" if number else ""
    yield workdir / DAMAGED / f"{place}-{step}{more}"
    number += 1


def _all_damaged(
  folder: paths.AnyPath, damaged: Mapping[int, str]
) -> InputError:
  faults = "; ".join(f"step {n}: {text}" for n, text in sorted(damaged.items()))
  return InputError(
    f"every checkpoint in {folder} is damaged: {faults}",
    f"copy them from where they are whole, or delete {folder}: --mode=all "
    "then makes them again",
  )


def _differences(old: Any, new: Any, path: str) -> list[str]:
  if isinstance(old, Mapping) and isinstance(new, Mapping):
    return [
      text
      for key in old.keys() | new.keys()
      for text in _differences(old.get(key), new.get(key), f"{path}.{key}")
    ]
  return [] if old == new else [f"{path[1:]} {old!r} -> {new!r}"]
