"""Checkpoints by Orbax: the latest few to resume from, the best to use.

Two managers, because one that keeps the best would throw away the latest:
`checkpoints/` holds the last `keep` states, `best/` the one state with the
highest selection score (seen and rare dev images; unseen has no say).
A file `run.json` says what run they belong to. All processes save and restore
together, each its own part; which processes and devices there were does not
matter to the next run.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from input_pipeline import atomic, paths
from input_pipeline.errors import InputError
from mipd_jax import distributed
from mipd_jax.training.state import TrainState

_REMEDY = "choose another --workdir, or delete this one to train from the start"


class Checkpoints:
  """The checkpoints of one work directory.

  Args:
    workdir: made when absent.
    identity: nested plain values that a run must share with the run that
      wrote the checkpoints (model, losses, optimizer, data).
    keep: how many of the latest states stay.

  Raises:
    InputError: the directory holds checkpoints of another run; the message
      names the fields that differ.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    identity: Mapping[str, Any],
    keep: int = 2,
  ):
    self.workdir = paths.absolute(workdir)
    self.workdir.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(identity))
    distributed.agreed(lambda: self._check_identity(plain))
    self._latest = ocp.CheckpointManager(
      self.workdir / "checkpoints",
      options=ocp.CheckpointManagerOptions(max_to_keep=keep),
    )
    self._best = _best_manager(self.workdir)

  def save(self, state: TrainState) -> None:
    """Saves the state under its step, in the background."""
    step = int(state.step)
    if step not in self._latest.all_steps():
      self._one_at_a_time(self._best)
      self._latest.save(step, args=ocp.args.StandardSave(state))

  def save_best(self, state: TrainState, selection: float) -> None:
    """Saves the state if it is the best so far by `selection`."""
    step = int(state.step)
    if step not in self._best.all_steps():
      self._one_at_a_time(self._latest)
      self._best.save(
        step,
        args=ocp.args.StandardSave(state),
        metrics={"selection": selection},
      )

  def _one_at_a_time(self, other: ocp.CheckpointManager) -> None:
    """Waits for the other manager's save, where there are several processes.

    Their threads in the background meet at barriers that Orbax gives the same
    name in all managers, so two saves at once break each other.
    """
    if jax.process_count() > 1:
      other.wait_until_finished()

  def latest_step(self) -> int | None:
    return self._latest.latest_step()

  def best_step(self) -> int | None:
    return self._best.best_step()

  def restore_latest(self, like: TrainState) -> TrainState:
    """The state of `latest_step`, placed as `like`."""
    return self._restore(self._latest, self.latest_step(), like)

  def restore_best_params(self, like: Mapping[str, Any]) -> dict[str, Any]:
    """Those parameters of `best_step` that `like` names; others stay unread.

    Args:
      like: nested shapes with their shardings, such as the student's alone:
        evaluation needs no teacher branch, and none that fits the data.
    """
    return _read_params(self.workdir, self.best_step(), like)

  def wait(self) -> None:
    """Returns when everything is on disk."""
    self._latest.wait_until_finished()
    self._best.wait_until_finished()

  def close(self) -> None:
    self._latest.close()
    self._best.close()

  def _restore(self, manager, step, like) -> TrainState:
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    arguments = ocp.args.StandardRestore(target)
    return _guarded(
      self.workdir, step, lambda: manager.restore(step, args=arguments)
    )

  def _check_identity(self, identity: Mapping[str, Any]) -> None:
    path = self.workdir / "run.json"
    states = self.workdir / "checkpoints"
    has_states = states.exists() and any(states.glob("[0-9]*"))
    if path.exists() and has_states:
      found = json.loads(path.read_text())
      differ = sorted(_differences(found, identity, ""))
      if differ:
        raise InputError(
          f"{self.workdir} holds checkpoints of another run; these differ "
          f"(there -> here): {'; '.join(differ)}",
          _REMEDY,
        )
    if not distributed.is_first():
      return
    with atomic.replacing(path) as partial:
      partial.write_text(json.dumps(identity, indent=2, sort_keys=True) + "\n")


def read_best(
  workdir: str | os.PathLike[str], like: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
  """Parameters of the best checkpoint and its step; writes nothing.

  Args:
    workdir: of a run, whichever it was.
    like: as of `Checkpoints.restore_best_params`.

  Raises:
    InputError: there is no checkpoint, or it does not fit.
  """
  workdir = paths.absolute(workdir)
  step = None
  if (workdir / "best").exists():
    manager = _best_manager(workdir, read_only=True)
    step = manager.best_step()
    manager.close()
  return _read_params(workdir, step, like), step


def _best_manager(
  workdir: paths.AnyPath, *, read_only: bool = False
) -> ocp.CheckpointManager:
  options = ocp.CheckpointManagerOptions(
    max_to_keep=None if read_only else 1,
    best_fn=lambda metrics: metrics["selection"],
    best_mode="max",
    read_only=read_only,
  )
  return ocp.CheckpointManager(workdir / "best", options=options)


def _read_params(workdir, step, like) -> dict[str, Any]:
  """Parameters of one of the best checkpoints, those that `like` names."""
  target = jax.tree.map(ocp.utils.to_shape_dtype_struct, {"params": dict(like)})
  arguments = ocp.args.PyTreeRestore(
    target,
    restore_args=ocp.checkpoint_utils.construct_restore_args(target),
    partial_restore=True,
  )
  # The manager knows how to restore whole states only.
  path = workdir / "best" / str(step) / "default"
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    found = _guarded(workdir, step, lambda: reader.restore(path, arguments))
  # Orbax hands back the shape of what the checkpoint does not have.
  for path, leaf in jax.tree_util.tree_leaves_with_path(found):
    if isinstance(leaf, jax.ShapeDtypeStruct):
      reason = f"it lacks {jax.tree_util.keystr(path)}"
      raise _misfit(workdir, step, reason)
  return found["params"]


def _guarded(workdir, step, restore) -> Any:
  """Restores, or says which checkpoint does not fit and what to do."""
  if step is None:
    raise InputError(
      f"{workdir} has no checkpoint", "train first: --mode=train or --mode=all"
    )
  try:
    return restore()
  except (ValueError, KeyError, FileNotFoundError) as error:
    raise _misfit(workdir, step, str(error)) from error


def _misfit(workdir, step, reason: str) -> InputError:
  return InputError(
    f"the checkpoint of step {step} in {workdir} does not fit the model of "
    f"this config: {reason}",
    _REMEDY,
  )


def _differences(old: Any, new: Any, path: str) -> list[str]:
  if isinstance(old, Mapping) and isinstance(new, Mapping):
    return [
      text
      for key in old.keys() | new.keys()
      for text in _differences(old.get(key), new.get(key), f"{path}.{key}")
    ]
  return [] if old == new else [f"{path[1:]} {old!r} -> {new!r}"]
