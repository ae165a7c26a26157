"""The whole debug run, made once a session and shared by the tests.

A test module takes it by `from tests.pipeline_fixture import pipeline`.
"""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import filelock
import pytest

from configs import synthetic
from input_pipeline.io import json_files
from mipd_jax import config as config_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PREDICTIONS = "predictions.json"  # of the run's evaluation, below its folder
# Files of a run that name folders, or a hash of the config, which names them.
_NAME_FOLDERS = (
  "cache/made_from.json",
  *(f"work/{name}" for name in ("config.json", "results.json", "results.md")),
  "work/report.html",
)


@dataclasses.dataclass(frozen=True)
class Pipeline:
  """Folders of a debug run, and what its process said.

  Attributes:
    folder: holds world, tfds, foundation, cache and the workdir `work`.
    done: the process of `--mode=all`.
  """

  folder: pathlib.Path
  done: subprocess.CompletedProcess

  @property
  def work(self) -> pathlib.Path:
    return self.folder / "work"

  def config(
    self,
    workdir: pathlib.Path,
    variant: str = "debug",
    values: dict[str, Any] | None = None,
  ) -> config_lib.Config:
    """The config of the run with other dotted values."""
    config = synthetic.get_config(variant)
    config.update_from_flattened_dict(
      {"workdir": str(workdir)} | folders(self.folder) | (values or {})
    )
    return config_lib.unpack(config)


def folders(folder: pathlib.Path) -> dict[str, Any]:
  """Dotted values of a debug run below `folder`."""
  return {
    "dataset.folder": str(folder / "world"),
    "teacher.student_encoder": str(folder / "foundation" / "student_clip"),
    "teacher.teacher_encoder": str(folder / "foundation" / "teacher_blip2"),
    "teacher.text_encoder": str(folder / "foundation" / "teacher_clip"),
    "teacher.cache": str(folder / "cache"),
  }


def command(
  folder: pathlib.Path,
  workdir: pathlib.Path,
  *arguments: str,
  variant: str = "debug",
) -> list[str]:
  """The command line of a debug run below `folder`."""
  flags = [f"--config.{k}={v}" for k, v in folders(folder).items()]
  return [
    *(sys.executable, "-m", "mipd_jax.main"),
    f"--config=configs/synthetic.py:{variant}",
    f"--workdir={workdir}",
    *flags,
    *arguments,
  ]


def environment() -> dict[str, str]:
  """One device, as on a user's machine: eight compile and run for long."""
  return os.environ | {"XLA_FLAGS": ""}


def run(command: list[str]) -> subprocess.CompletedProcess:
  """Runs a command from the repository's root; its exit code is not judged."""
  return subprocess.run(
    command,
    cwd=ROOT,
    env=environment(),
    capture_output=True,
    text=True,
    timeout=400,
    check=False,
  )


def all_stages(folder: pathlib.Path, workdir: pathlib.Path) -> Pipeline:
  """Runs what is missing of everything below `folder`."""
  file = folder / PREDICTIONS
  done = run(command(folder, workdir, f"--config.eval.predictions={file}"))
  assert done.returncode == 0, done.stderr[-3000:]
  return Pipeline(folder, done)


@functools.cache
def _make(folder: pathlib.Path, shared: pathlib.Path) -> Pipeline:
  """One worker of a session runs it; the others copy what it made."""
  note = shared / "pipeline.json"
  with filelock.FileLock(shared / "pipeline.lock"):
    if not note.exists():
      made = all_stages(folder, folder / "work")
      # Its own folder goes on being used, while others copy.
      shutil.copytree(folder, shared / "pipeline_as_made")
      said = dataclasses.asdict(_Said.of(made))
      note.write_text(json.dumps(said))
      return made
    said = _Said(**json.loads(note.read_text()))
  # Files keep their times.
  shutil.copytree(shared / "pipeline_as_made", folder)
  done = subprocess.CompletedProcess(said.args, 0, said.stdout, said.stderr)
  made = Pipeline(folder, done)
  first = Pipeline(pathlib.Path(said.folder), done)
  hashes = [run.config(run.work).hash() for run in (first, made)]
  for name in _NAME_FOLDERS:
    path = folder / name
    text = path.read_text().replace(said.folder, str(folder))
    text = text.replace(*hashes)
    if name.endswith("results.json"):
      content = json_files.sealed(json.loads(text))
      text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text)
  return made


@dataclasses.dataclass(frozen=True)
class _Said:
  """What one worker tells the others of its run."""

  folder: str
  args: list[str]
  stdout: str
  stderr: str

  @classmethod
  def of(cls, made: Pipeline) -> "_Said":
    done = made.done
    return cls(str(made.folder), done.args, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory) -> Pipeline:
  """pytest makes a fixture anew in each module that imports it; this not."""
  base = tmp_path_factory.getbasetemp()
  workers = "PYTEST_XDIST_WORKER" in os.environ
  return _make(base / "pipeline", base.parent if workers else base)


def snapshot(*places: pathlib.Path) -> dict[str, tuple[int, int]]:
  """(size, time of change) of every file below some folders."""
  return {
    str(path): (path.stat().st_size, path.stat().st_mtime_ns)
    for place in places
    for path in sorted(place.rglob("*"))
    if path.is_file()
  }
