"""Several processes as one run: joining, and agreeing on the next action.

A process that raises alone leaves the others waiting forever in their next
collective call; so work that may fail on one of them goes through `agreed`, and
values that may differ between them go through `all_of`, `any_of` or
`check_equal`. With one process all of these cost nothing.
"""

import contextlib
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn, TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from input_pipeline.io.errors import InputError

T = TypeVar("T")
# Value of --coordinator: the cluster's environment knows the processes.
AUTO = "auto"
_MESSAGE_BYTES = 2048
# Seconds until all processes have to be there: if started by hand, and by a
# cluster, which may install packages first; seconds between messages about
# missing processes.
PATIENCE, PATIENCE_AUTO = 120, 300
_LOOK_EVERY = 10
_START_ALL = (
  "start every process with the same --coordinator and --num_processes, each "
  "with its own --process_id from 0; see that the port is open"
)


def initialize(
  coordinator: str = "",
  num_processes: int = 0,
  process_id: int = -1,
  environment: Mapping[str, str] = os.environ,
) -> None:
  """Joins the processes of a run; call it before anything uses devices.

  Args:
    coordinator: "auto" (TPU pods, Slurm, ...), or HOST:PORT of process 0; ""
      takes JAX_COORDINATOR_ADDRESS, or a single process if that is not set
      either.
    num_processes, process_id: beside HOST:PORT; 0 and -1 take
      JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    environment: has these variables.

  Raises:
    InputError: a part of the three is missing or wrong.

  While others are missing, the process says every few seconds for whom it
  waits; after `PATIENCE` seconds it ends with one message and exit code 2.
  """
  coordinator = coordinator or environment.get("JAX_COORDINATOR_ADDRESS", "")
  if not coordinator:
    if num_processes > 1 or process_id > 0:
      raise InputError(
        "--num_processes and --process_id need --coordinator",
        "give --coordinator=HOST:PORT, where process 0 runs, or auto",
      )
    return
  # We handle signals (training/loop.py); JAX's service would take them.
  jax.config.update("jax_enable_preemption_service", False)
  arguments = {}
  if coordinator != AUTO:
    arguments = {
      "coordinator_address": coordinator,
      "num_processes": num_processes
      or _number(environment, "JAX_NUM_PROCESSES", "--num_processes"),
      "process_id": process_id
      if process_id >= 0
      else _number(environment, "JAX_PROCESS_ID", "--process_id"),
    }
  if os.environ.get("JAX_PLATFORMS", jax.config.jax_platforms) == "cpu":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Concurrent steps may take each other's threads and never end.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
  try:
    patience = PATIENCE_AUTO if coordinator == AUTO else PATIENCE
    with _waiting(coordinator, arguments, patience):
      # JAX would abort the process; our timeout comes first.
      jax.distributed.initialize(
        **arguments, initialization_timeout=2 * patience
      )
  except (ValueError, RuntimeError) as error:
    raise InputError(
      f"the processes of --coordinator={coordinator} did not meet: {error}",
      _START_ALL,
    ) from error


@contextlib.contextmanager
def _waiting(
  coordinator: str, arguments: Mapping, patience: int
) -> Iterator[None]:
  """Says for whom the block waits; ends the process after too long."""
  count, index = (arguments.get(k) for k in ("num_processes", "process_id"))
  met = threading.Event()

  def tell() -> None:
    until = time.monotonic() + patience
    while (left := until - time.monotonic()) > 0:
      logging.info(
        "Waiting for %s, %.0f s more.",
        _missing(coordinator, count, index),
        left,
      )
      if met.wait(min(_LOOK_EVERY, left)):
        return
    _give_up(
      f"{_missing(coordinator, count, index)} did not come within {patience} s "
      f"(--coordinator={coordinator} --num_processes={count or 'auto'} "
      f"--process_id={'auto' if index is None else index})"
    )

  # The caller is in C++, where no exception reaches it.
  thread = threading.Thread(target=tell, daemon=True)
  if count != 1:
    thread.start()
  try:
    yield
  finally:
    met.set()


def _missing(coordinator: str, count: int | None, index: int | None) -> str:
  """The missing processes, as far as this process can know."""
  if count is None:
    return "the other processes of the run"
  others = [i for i in range(count) if i != index]
  if index and not _answers(coordinator):
    return f"process 0, which should answer at {coordinator} and does not yet"
  if index:  # only process 0 knows which processes are there
    others.remove(0)
  if not others:
    return f"process 0 at {coordinator}, which answers"
  some = "" if len(others) == 1 else "some of "
  kind = "process" if len(others) == 1 else "processes"
  listed = ", ".join(map(str, others[:8])) + (", ..." if others[8:] else "")
  return f"{some}{kind} {listed} of {count} to join {coordinator}"


def _answers(coordinator: str) -> bool:
  """Whether a server listens at HOST:PORT."""
  host, _, port = coordinator.rpartition(":")
  try:
    with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
      return True
  except (OSError, ValueError, OverflowError):
    return False


def _give_up(problem: str) -> NoReturn:
  """Ends the process, from any thread, as a command ends on bad input."""
  logging.error("%s", InputError(problem, _START_ALL))
  logging.flush()
  sys.stderr.flush()
  sys.stdout.flush()
  os._exit(2)


def _number(environment: Mapping[str, str], name: str, flag: str) -> int:
  value = environment.get(name, "")
  if not value.isdigit():
    raise InputError(
      f"--coordinator is given, but {flag} is not and {name} is {value!r}",
      f"give {flag}",
    )
  return int(value)


def is_first() -> bool:
  """Whether this process writes the files of the run: metrics, results."""
  return jax.process_index() == 0


def all_of(flag: bool) -> bool:
  """Whether a flag is set on all processes; a collective call."""
  return bool(np.all(_gather(np.array([flag]))))


def any_of(flag: bool) -> bool:
  """Whether a flag is set on any process; a collective call."""
  return bool(np.any(_gather(np.array([flag]))))


def check_equal(what: str, text: str) -> None:
  """Raises InputError on all processes unless all have the same text."""
  digest = hashlib.sha256(text.encode()).digest()
  digests = _gather(np.frombuffer(digest, np.uint8)[None])
  other = np.flatnonzero((digests != digests[0]).any(axis=-1))
  if len(other):
    raise InputError(
      f"process {other[0]} has another {what} than process 0",
      "start all processes with the same files, flags and version",
    )


def agreed(work: Callable[[], T]) -> T:
  """Calls `work` on every process, on process 0 first.

  Raises:
    InputError: on all processes if `work` raised it on one of them.
  """
  if jax.process_count() == 1:
    return work()
  result = None
  for turn in (True, False):
    problem = None
    if is_first() == turn:
      try:
        result = work()
      except InputError as error:
        problem = error
    raise_together(problem)
  return result


def raise_together(problem: InputError | None) -> None:
  """Raises one process's problem on all processes; a collective call.

  The process with the problem raises it unchanged, the others name that
  process.
  """
  if jax.process_count() == 1:
    if problem:
      raise problem
    return
  text = str(problem).encode()[:_MESSAGE_BYTES] if problem else b""
  padded = text.ljust(_MESSAGE_BYTES, b"\0")
  messages = _gather(np.frombuffer(padded, np.uint8)[None])
  if problem:
    raise problem
  for process, message in enumerate(messages):
    said = message.tobytes().rstrip(b"\0").decode(errors="replace")
    if said:
      raise InputError(
        f"process {process} stopped: {said}", "mend it there, start all again"
      )


def barrier(name: str) -> None:
  """Returns when all processes are here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def _gather(rows: np.ndarray) -> np.ndarray:
  """The rows of all processes, stacked."""
  if jax.process_count() == 1:
    return rows
  return np.asarray(multihost_utils.process_allgather(rows, tiled=True))
