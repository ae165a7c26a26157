"""Writes a cache shard by shard, so that it can be stopped at any time.

While a cache is being made its folder holds `building/`, with the plan and
one note per finished file. `manifest.json` is written last; a restart with
the same plan writes only the files that have no note. Processes that share
the folder communicate only through these notes, without a network, and may
start in any order. Each holds a lock there (`alone`), so that no other run
writes at the same time.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from input_pipeline.feature_cache import manifest, reader
from input_pipeline.feature_cache.manifest import (
  BUILDING,
  MANIFEST,
  PLAN,
  Manifest,
)
from input_pipeline.feature_cache.plan import CachePlan, Shard, check_same
from input_pipeline.feature_cache.shard import ShardWriter
from input_pipeline.io import errors, lock
from input_pipeline.io.errors import InputError

# Seconds between looks at the folder while waiting for other processes, and
# the longest wait without a new file.
_LOOK_EVERY = 0.5
PATIENCE = 3600.0


@contextlib.contextmanager
def alone(folder: str | Path, index: int = 0, count: int = 1) -> Iterator[None]:
  """Keeps other runs out of a cache's folder; enter before `CacheWriter`.

  Args:
    folder: the cache's folder; made if absent.
    index, count: number of this process among those that make the cache.

  Raises:
    InputError: another process writes there, or the folder cannot be made.
  """
  _make_folder(Path(folder))
  with lock.holding(folder, "preparing this cache", index=index, count=count):
    yield


class CacheWriter:
  """Writes the files of one cache; several processes may share a folder.

  Shard i of every part belongs to process `i % process_count`. Process 0
  also writes the other files and finishes when all processes are done.
  """

  def __init__(
    self,
    folder: str | Path,
    plan: CachePlan,
    *,
    process_index: int = 0,
    process_count: int = 1,
  ):
    """Starts a cache, continues an unfinished one or mends a damaged one.

    Raises:
      InputError: the folder holds a cache of another plan, finished or not,
        or other files, or the disk has too little space.
    """
    self.folder = Path(folder)
    self.plan = plan
    self._process = (process_index, process_count)
    self._notes = self.folder / BUILDING
    if process_index:
      self._wait(self._is_begun, "process 0 to begin the cache")
    listed = self._check_folder()
    _make_folder(self._notes)
    if process_index == 0:
      manifest.write_plan(self._notes / PLAN, plan)
      for path, note in listed.items():
        if reader.is_there(self.folder / path, note):
          manifest.write_json(self._note_path(path), note)
      (self.folder / MANIFEST).unlink(missing_ok=True)
    if process_count == 1:  # else the files may belong to other processes
      self._clean()
    needed = self.bytes_left()
    if needed > shutil.disk_usage(self.folder).free:
      raise manifest.full_disk(self.folder, needed)

  @property
  def is_first(self) -> bool:
    """Whether this process writes the single files: labels, texts, ..."""
    return self._process[0] == 0

  def _is_begun(self) -> bool:
    plan = self._notes / PLAN
    return plan.exists() and not (self.folder / MANIFEST).exists()

  def wait_for(self, paths: tuple[str, ...]) -> None:
    """Returns when all these files are done, by any process.

    Raises:
      InputError: no file was finished for `PATIENCE` seconds.
    """
    self._wait(
      lambda: self.is_finished or all(self.is_done(path) for path in paths),
      f"{len(paths)} files ({paths[0]}, ...) of the other processes",
    )

  def wait_for_manifest(self) -> None:
    """Returns when process 0 has finished the cache."""
    self._wait(lambda: self.is_finished, f"process 0 to write {MANIFEST}")

  @property
  def is_finished(self) -> bool:
    """Whether the manifest exists, so nothing is left to do."""
    return (self.folder / MANIFEST).exists()

  def _wait(self, ready: Callable[[], bool], what: str) -> None:
    seen, since = -1, time.monotonic()
    while not ready():
      there = len(list(self._notes.glob("*.json")))
      if there != seen:
        seen, since = there, time.monotonic()
      if time.monotonic() - since > PATIENCE:
        raise InputError(
          f"{self.folder}: waited {PATIENCE:.0f} s for {what}, and no file "
          "was finished in that time",
          "see whether a process died; run the same command again, finished "
          "files are kept",
        )
      time.sleep(_LOOK_EVERY)

  def _check_folder(self) -> Mapping[str, Mapping]:
    """Refuses another cache's folder; returns a finished one's entries."""
    for path in (self.folder / MANIFEST, self._notes / PLAN):
      if path.exists():
        existing = manifest.read(path)
        check_same(existing.plan, self.plan, str(self.folder))
        return existing.files
    if self.folder.is_dir():
      foreign = {
        entry.name
        for entry in self.folder.iterdir()
        if entry.name != BUILDING and not lock.is_lock(entry.name)
      }
      if foreign:
        raise InputError(
          f"{self.folder} holds {sorted(foreign)[:3]} and is no cache (no "
          f"{MANIFEST}, no {BUILDING}/{PLAN})",
          "give an empty or new folder for the cache",
        )
    return {}

  def bytes_left(self) -> int:
    """Bytes of features that all processes together still have to write."""
    return sum(
      (shard.stop - shard.start) * self.plan.record_bytes(shard.part)
      for shard in self.plan.all_shards()
      if not self.is_done(shard.path)
    )

  def is_done(self, path: str) -> bool:
    """Whether a file (path relative to the folder) exists in full length."""
    note, file = self._note_path(path), self.folder / path
    if not note.exists() or not file.exists():
      return False
    return file.stat().st_size == self._read_note(path)["bytes"]

  def load_arrays(self, path: str) -> dict[str, np.ndarray]:
    """The arrays of a finished file, written by any process."""
    sha256 = self._read_note(path)["sha256"]
    return reader.load_arrays(self.folder / path, sha256)

  def load_text(self, path: str) -> str:
    """The text of a finished file, written by any process."""
    sha256 = self._read_note(path)["sha256"]
    return manifest.read_checked(self.folder / path, sha256).decode()

  def _read_note(self, path: str) -> Mapping:
    note = self._note_path(path)
    try:
      data = manifest.read_json(note)
      manifest.check_entry(data, str(note))
    except InputError as error:
      raise InputError(
        error.problem, f"delete {note}: that one file is made again"
      ) from error
    return data

  def pending(
    self, split: str, parts: tuple[str, ...] | None = None
  ) -> tuple[Shard, ...]:
    """Shards of a split left to this process; of all parts if None."""
    index, count = self._process
    return tuple(
      shard
      for part in self.plan.split(split).parts
      if parts is None or part in parts
      for shard in self.plan.shards(split, part)
      if shard.number % count == index and not self.is_done(shard.path)
    )

  @contextlib.contextmanager
  def open_shard(self, shard: Shard) -> Iterator[ShardWriter]:
    """A writer for all examples of one shard; writes its note at the end."""
    num_examples = shard.stop - shard.start
    with ShardWriter(
      self.folder / shard.path,
      self.plan.part_fields(shard.part),
      num_examples,
      self.bytes_left,
    ) as writer:
      yield writer
    self._note(shard.path, records=num_examples, **writer.remarks)

  def write_arrays(self, path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz of numpy arrays; equal arrays give equal bytes."""

    def write(temporary: Path) -> None:
      with temporary.open("wb") as file:
        np.savez(file, **arrays)

    self._write(path, write)

  def write_text(self, path: str, text: str) -> None:
    self._write(path, lambda temporary: temporary.write_text(text))

  def _write(self, path: str, write: Callable[[Path], None]) -> None:
    manifest.write_whole(self.folder / path, write)
    self._note(path)

  def missing(self, paths: tuple[str, ...] = ()) -> list[str]:
    """Files of the plan, and of `paths`, that are not done."""
    if self.is_finished:
      return []
    names = [shard.path for shard in self.plan.all_shards()] + list(paths)
    return [name for name in names if not self.is_done(name)]

  def _note(self, path: str, **more: object) -> None:
    file = self.folder / path
    note = {
      "bytes": file.stat().st_size,
      "sha256": manifest.sha256(file),
      **more,
    }
    manifest.write_json(self._note_path(path), note)

  def _note_path(self, path: str) -> Path:
    return self._notes / (path.replace("/", "--") + ".json")

  def _clean(self) -> None:
    """Deletes unfinished files of killed processes."""
    for pattern in ("*" + manifest.TEMPORARY, f".*{manifest.TEMPORARY}.*"):
      for leftover in self.folder.rglob(pattern):
        if not lock.is_lock(leftover.name):
          leftover.unlink(missing_ok=True)

  def finish(
    self,
    paths: tuple[str, ...] = (),
    libraries: Mapping[str, str] | None = None,
  ) -> None:
    """Writes the manifest; process 0 calls it when all are done.

    Args:
      paths: files besides the shards, all written with this class.
      libraries: versions of the libraries that computed the features.

    Raises:
      InputError: a shard or a file is missing.
    """
    names = [shard.path for shard in self.plan.all_shards()] + list(paths)
    if missing := self.missing(paths):
      raise InputError(
        f"the cache {self.folder} lacks {len(missing)} of {len(names)} files: "
        f"{missing[:5]}",
        "run the same command again, it writes what is missing",
      )
    self._clean()
    entries = {name: self._read_note(name) for name in names}
    manifest.write(
      self.folder / MANIFEST, Manifest(self.plan, entries, libraries or {})
    )
    shutil.rmtree(self._notes)


def _make_folder(folder: Path) -> None:
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    if errors.is_full(error):
      raise manifest.full_disk(folder.parent) from error
    raise InputError(
      f"the cache folder {folder} cannot be made: {error}",
      "choose a folder that you may write to",
    ) from error
