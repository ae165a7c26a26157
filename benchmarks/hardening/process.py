"""Runs commands in forked processes that have imported the libraries already.

`import_libraries` is called once, in a process without threads and without a
jax backend. Every command then runs in a fork of it, as with `python -m`: with
its own session, arguments, folder, standard streams and exit code.
"""

import atexit
import contextlib
import dataclasses
import importlib
import json
import logging
import os
import pathlib
import resource
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from benchmarks.hardening.command_lines import Command

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPILED = "compiled"
# No command of a debug run takes as long, even on a busy machine.
TIMEOUT_SECONDS = 400
_POLL_SECONDS = 0.004
_TICKS = os.sysconf("SC_CLK_TCK")
_LIBRARIES = (
  *("numpy", "jax", "flax.linen", "optax", "tensorflow", "transformers"),
  *("tensorflow_datasets", "orbax.checkpoint", "matplotlib.pyplot"),
  *("clu.metric_writers", "safetensors.numpy", "tokenizers", "ml_collections"),
)


@dataclasses.dataclass(frozen=True)
class Kill:
  """A signal, and when to send it, by the seconds of CPU time so far."""

  number: int
  due: Callable[[float], bool]


@dataclasses.dataclass
class Ended:
  """How a command ended.

  Attributes:
    code: exit code; if negative, the signal that ended it.
    out, err: its standard output and standard error.
    cpu_seconds: user and system time.
    killed: whether the signal came before its end.
    stop_seconds: seconds from the signal to the end.
    after: its standard error after the signal.
    hung: whether it was ended after `TIMEOUT_SECONDS`.
  """

  code: int
  out: str
  err: str
  cpu_seconds: float
  killed: bool = False
  stop_seconds: float = 0.0
  after: str = ""
  hung: bool = False


def prepare_environment() -> None:
  """Sets the variables that must be set before any import."""
  os.environ.update(
    TF_CPP_MIN_LOG_LEVEL="3",
    TF_ENABLE_ONEDNN_OPTS="0",
    OPENBLAS_NUM_THREADS="1",  # else numpy starts threads, and forks are unsafe
    JAX_COMPILATION_CACHE_DIR=COMPILED,
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.3",
    JAX_PLATFORMS="cpu",
    PYTHONPATH=str(ROOT),
  )
  os.environ.pop("XLA_FLAGS", None)


def import_libraries() -> None:
  """Imports what commands need, and checks that forking is still safe.

  Raises:
    RuntimeError: there are threads, or jax has a backend.
  """
  for name in _LIBRARIES:
    importlib.import_module(name)
  for path in sorted((ROOT / "mipd_jax").rglob("*.py")):
    if "scripts" in path.parts or "__name__ ==" in path.read_text():
      continue
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if name != "mipd_jax.command_line":
      importlib.import_module(name.removesuffix(".__init__"))
  # A new process would not have the log handlers that libraries have added.
  logging.root.handlers.clear()
  from jax._src import xla_bridge

  threads = len(os.listdir("/proc/self/task"))
  if threads != 1 or xla_bridge._backends:
    raise RuntimeError(f"{threads} threads, backends {xla_bridge._backends}")


def run(
  command: Command,
  folder: pathlib.Path,
  *,
  own_process: bool = False,
  kill: Kill | None = None,
  file_size: int = 0,
) -> Ended:
  """Runs a command in a folder and waits for its end."""
  out_read, out_write = os.pipe()
  err_read, err_write = os.pipe()
  if own_process:
    child = subprocess.Popen(
      [sys.executable, *command.arguments],
      cwd=folder,
      stdin=subprocess.DEVNULL,
      stdout=out_write,
      stderr=err_write,
      start_new_session=True,
    ).pid
  else:
    child = os.fork()
    if not child:
      _become(command, folder, out_write, err_write, file_size)
  os.close(out_write)
  os.close(err_write)
  return _watch(child, out_read, err_read, kill)


def in_fork(work: Callable[[], object]) -> object:
  """The JSON result of a function that may start threads, run in a fork."""
  read, write = os.pipe()
  child = os.fork()
  if not child:
    code = 1
    try:
      os.close(read)
      sink = os.open(os.devnull, os.O_WRONLY)
      os.dup2(sink, 1)
      os.dup2(sink, 2)
      with open(write, "w") as target:
        json.dump(work(), target)
      code = 0
    finally:
      os._exit(code)
  os.close(write)
  with open(read) as source:
    text = source.read()
  os.waitpid(child, 0)
  return json.loads(text)


def _become(command, folder, out, err, file_size) -> NoReturn:
  """Runs in the child, as if the interpreter had started for this command."""
  code = 1
  try:
    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 64)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if file_size:
      resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    code = _as_interpreter(command)
  except BaseException:
    traceback.print_exc()
  finally:
    with contextlib.suppress(BaseException):
      sys.stdout.flush()
      sys.stderr.flush()
    os._exit(code)


def _as_interpreter(command: Command) -> int:
  """Runs the module or script and ends as Python does."""
  interrupted = False
  try:
    if command.arguments[0] == "-m":
      sys.argv = list(command.arguments[1:])
      _forget(sys.argv[0])
      runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
      sys.argv = list(command.arguments)
      sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
      runpy.run_path(sys.argv[0], run_name="__main__")
    code = 0
  except SystemExit as error:
    code = error.code
    if code is None:
      code = 0
    elif not isinstance(code, int):
      print(code, file=sys.stderr)
      code = 1
  except BaseException as error:
    interrupted = isinstance(error, KeyboardInterrupt)
    traceback.print_exc()
    code = 1
  threading._shutdown()
  atexit._run_exitfuncs()
  sys.stdout.flush()
  sys.stderr.flush()
  if interrupted:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
  return code & 0xFF


def _forget(module: str) -> None:
  """Forgets a module that is to be run, and its registered dataset."""
  if sys.modules.pop(module, None):
    from tensorflow_datasets.core import registered

    for name, builder in list(registered._DATASET_REGISTRY.items()):
      if builder.__module__ == module:
        del registered._DATASET_REGISTRY[name]


def _watch(child: int, out: int, err: int, kill: Kill | None) -> Ended:
  """Reads both pipes until the end, and sends the signal in time.

  Nothing keeps running, even if this program is stopped.
  """
  try:
    return _read_until_end(child, out, err, kill)
  finally:
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(child, signal.SIGKILL)  # with what it may have started
    os.close(out)
    os.close(err)


def _read_until_end(child: int, out: int, err: int, kill: Kill | None) -> Ended:
  said = {out: bytearray(), err: bytearray()}
  open_pipes = {out, err}
  begun = time.monotonic()
  sent = ended = None
  mark, hung = 0, False
  while ended is None:
    ready, _, _ = select.select(list(open_pipes), [], [], _POLL_SECONDS)
    for pipe in ready:
      piece = os.read(pipe, 2**16)
      said[pipe] += piece
      if not piece:
        open_pipes.discard(pipe)
    pid, status, usage = os.wait4(child, os.WNOHANG)
    if pid:
      ended = time.monotonic()
      break
    if kill and sent is None and kill.due(_cpu_seconds(child)):
      sent, mark = time.monotonic(), len(said[err])
      with contextlib.suppress(ProcessLookupError):
        os.killpg(child, kill.number)
    if not hung and time.monotonic() - begun > TIMEOUT_SECONDS:
      hung = True
      with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
  for pipe in (out, err):
    while pipe in open_pipes and select.select([pipe], [], [], 0)[0]:
      piece = os.read(pipe, 2**16)
      if not piece:
        break
      said[pipe] += piece
  texts = {pipe: bytes(x).decode(errors="replace") for pipe, x in said.items()}
  return Ended(
    os.waitstatus_to_exitcode(status),
    texts[out],
    texts[err],
    usage.ru_utime + usage.ru_stime,
    killed=sent is not None,
    stop_seconds=ended - sent if sent else 0.0,
    after=bytes(said[err][mark:]).decode(errors="replace") if sent else "",
    hung=hung,
  )


def _cpu_seconds(pid: int) -> float:
  try:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1]
  except (OSError, IndexError):
    return 0.0
  user, system = fields.split()[11:13]
  return (int(user) + int(system)) / _TICKS
