"""Folders that cases start from, and the results of undisturbed commands."""

import json
import os
import pathlib
import shutil
import signal

import filelock

from benchmarks.hardening import command_lines, process
from benchmarks.hardening.process import COMPILED, ROOT
from input_pipeline.io import atomic

STATES = ("nothing", "bare", "world", "made", "cached", "mid", "whole")
# What each state lacks of the finished run.
_LACKS = {
  "bare": ("foundation", "tfds", "cache", "work"),
  "world": ("tfds", "cache", "work"),
  "made": ("cache", "work"),
  "cached": ("work",),
  "whole": (),
}
_TRIES = 20
# What a run consists of, and its files that name folders.
_RUN = ("world", "tfds", "foundation", "cache", "work")
_NAME_FOLDERS = ("cache/made_from.json", "work/config.json")
# Variable that names programs compiled before.
_COMPILED_BEFORE = "HARDENING_COMPILED"


class States:
  """States below a folder, made on demand."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder.absolute()
    self._folder.mkdir(parents=True, exist_ok=True)

  def place(self, state: str) -> pathlib.Path:
    """The folder of a state; callers must not change it."""
    place = self._folder / "states" / state
    if not place.exists():
      with filelock.FileLock(self._folder / "states.lock"):
        if not place.exists():
          self._make(state, place)
    return place

  def copy(self, state: str, target: pathlib.Path) -> None:
    """Copies a state, to be changed; compiled programs are links."""
    _copy(self.place(state), target)

  def adopt(self, run: pathlib.Path) -> None:
    """Uses a finished debug run for `whole`, with its compiled programs.

    Args:
      run: folder of world, tfds, foundation, cache and the work directory
        `work`, made with flags that name them below this folder.
    """
    place = self._folder / "states" / "whole"
    if place.exists():
      return
    with atomic.new_folder(place) as folder:
      _add_links(folder)
      for name in _RUN:
        shutil.copytree(run / name, folder / name)
      for name in _NAME_FOLDERS:
        path = folder / name
        path.write_text(path.read_text().replace(f"{run}/", ""))
      compiled = os.environ.get(_COMPILED_BEFORE)
      if compiled:
        shutil.copytree(compiled, folder / COMPILED, dirs_exist_ok=True)
      command_lines.write_inputs(folder)

  def undisturbed(self, state: str, command: str) -> dict:
    """The results of a command on a state: 'products', 'cpu_seconds'.

    Raises:
      RuntimeError: the command fails.
    """
    path = self._folder / "undisturbed" / f"{state} {command}.json"
    if path.exists():
      return json.loads(path.read_text())
    trial = self._folder / "trial" / f"{state} {command} {os.getpid()}"
    self.copy(state, trial)
    what = command_lines.COMMANDS[command]
    ended = process.run(what, trial)
    if ended.code:
      raise RuntimeError(
        f"{what.typed} in state {state} ends with {ended.code}:\n"
        f"{ended.err[-3000:]}"
      )
    made = {
      "products": process.in_fork(
        lambda: command_lines.products(what, trial, ended.out)
      ),
      "cpu_seconds": ended.cpu_seconds,
    }
    shutil.rmtree(trial)
    with atomic.replacing(path) as partial:
      partial.write_text(json.dumps(made, indent=1) + "\n")
    return made

  def _make(self, state: str, place: pathlib.Path) -> None:
    if state == "nothing":
      with atomic.new_folder(place) as folder:
        _add_links(folder)
      return
    if state == "whole":
      with atomic.new_folder(place) as folder:
        _add_links(folder)
        self._finish(folder)
      return
    whole = self._folder / "states" / "whole"
    if not whole.exists():
      self._make("whole", whole)
    with atomic.new_folder(place) as folder:
      if state == "mid":
        self._stop_half_way(whole, folder)
      else:
        _fill(whole, folder, _LACKS[state])

  def _finish(self, folder: pathlib.Path) -> None:
    """Runs everything, and makes what other commands read."""
    _checked(command_lines.COMMANDS["all"], folder)
    command_lines.write_inputs(folder)
    _checked(command_lines.COMMANDS["export"], folder)
    (folder / "again").rename(folder / "exported")
    for name in ("predict", "words", "exported"):  # fills `compiled`
      _checked(command_lines.COMMANDS[name], folder)
    for name in ("out", "out2"):
      shutil.rmtree(folder / name)

  def _stop_half_way(self, whole: pathlib.Path, folder: pathlib.Path) -> None:
    """Makes a run that a signal stopped after its first checkpoint."""
    metrics = folder / "work" / "metrics.jsonl"

    def due(_: float) -> bool:
      return metrics.exists() and metrics.stat().st_size > 0

    for _ in range(_TRIES):
      _fill(whole, folder, ("work",))
      process.run(
        command_lines.COMMANDS["train"],
        folder,
        kill=process.Kill(signal.SIGTERM, due),
      )
      names = {x.name for x in folder.glob("work/checkpoints/*")}
      if names and "12" not in names:
        return
      for name in os.listdir(folder):
        _remove(folder / name)
    raise RuntimeError("training was never stopped half-way")


def _checked(command: command_lines.Command, folder: pathlib.Path) -> None:
  ended = process.run(command, folder)
  if ended.code:
    raise RuntimeError(
      f"{command.typed} ends with {ended.code}:\n{ended.err[-3000:]}"
    )


def _add_links(folder: pathlib.Path) -> None:
  """What every folder has: configs, as in the repository's root."""
  (folder / "configs").symlink_to(ROOT / "configs")
  (folder / COMPILED).mkdir(exist_ok=True)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
  target.mkdir(parents=True)
  _fill(source, target, ())
  # Of a state, not of the run: always those of all commands.
  whole = source.parent / "whole" / COMPILED
  if whole.exists():
    shutil.rmtree(target / COMPILED, ignore_errors=True)
    shutil.copytree(whole, target / COMPILED, copy_function=os.link)


def _fill(
  source: pathlib.Path, target: pathlib.Path, without: tuple[str, ...]
) -> None:
  """Copies all except some names; keeps modification times."""
  for path in source.iterdir():
    if path.name in without:
      continue
    if path.is_symlink():
      (target / path.name).symlink_to(os.readlink(path))
    elif path.is_dir():
      shutil.copytree(path, target / path.name, symlinks=True)
    else:
      shutil.copy2(path, target / path.name)


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink()
