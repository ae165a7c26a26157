"""Builds of datasets with TFDS: disk space, quiet logs, checks of the files.

array_record checks each block when it reads it, so flipped bytes and truncated
files are errors. It does not notice a file from another build, or a wrong
number in TFDS's JSON files. `seal` therefore writes the number of examples and
the sha256 of every shard to `metadata.json`, and `check` and `check_shards`
compare the files with these.
"""

import contextlib
import functools
import hashlib
import io
import json
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from concurrent import futures
from typing import Any

from input_pipeline.io import errors, json_files, lock
from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress
from input_pipeline.ov_swig.records import Record


def make_folder(
  folder: pathlib.Path,
  what: str = "datasets",
  argument: str = "--data-dir, or the folder of --config.dataset.folder",
) -> None:
  """Makes a folder and tries to write there, before any long work.

  Args:
    folder: the folder.
    what: what will be written, for the message.
    argument: the command-line argument that names the folder.

  Raises:
    InputError: the folder cannot be made or written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise InputError(
      f"{folder}: {what} cannot be written there: {error.strerror or error}",
      f"give a folder that you may write to ({argument})",
    ) from None


@contextlib.contextmanager
def room_for(need: int, data_dir: pathlib.Path) -> Iterator[None]:
  """Makes a folder; a disk too full for the build raises InputError.

  Args:
    need: about how many bytes will be written there.
    data_dir: the folder.

  Raises:
    InputError: at once if there is too little space, or later if the disk
      fills up during the build.
  """
  make_folder(data_dir)
  free = shutil.disk_usage(data_dir).free
  if need > free:
    raise _full(data_dir, need, free)
  try:
    yield
  except Exception as error:
    if errors.is_full(error) or errors.is_full(error.__cause__ or error):
      free = shutil.disk_usage(data_dir).free
      raise _full(data_dir, need, free) from error
    raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Hides TFDS's messages about downloads (there are none), not its bars."""
  logger = logging.getLogger("absl")
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logger.setLevel(level)


def _full(data_dir: pathlib.Path, need: int, free: int) -> InputError:
  return InputError(
    f"{data_dir} has no space for the dataset, or a quota is reached: "
    f"{free / 1e6:.0f} MB are free, it needs about {need / 1e6:.0f} MB",
    "free space there, or choose another data directory",
  )


Builder = Any  # of tfds.core.DatasetBuilder; not imported for its name alone
_SHARDS, _SHA256 = "shards", "sha256"
_FORM = {
  _SHA256: str,
  "fingerprint": str,
  _SHARDS: {str: [{"name": str, "images": int, "sha256": str}]},
}
_METADATA = "metadata.json"
_INFO = "dataset_info.json"
_FEATURES = "features.json"
_THREADS = 4  # sha256 releases the GIL, and disks serve several readers


def seal(builder: Builder) -> None:
  """Records what was built; the last step of `_download_and_prepare`.

  Adds 'shards' (split -> 'name', 'images' and 'sha256' of each file) and
  'sha256' (of all metadata) to the builder's metadata.
  """
  metadata = builder.info.metadata
  metadata[_SHARDS] = {
    split: [
      {
        "name": path.name,
        "images": images,
        "sha256": _digest_or_fault(pathlib.Path(builder.data_dir) / path.name),
      }
      for path, images in zip(
        map(pathlib.Path, info.filenames), info.shard_lengths, strict=True
      )
    ]
    for split, info in builder.info.splits.items()
  }
  metadata[_SHA256] = _digest(json.loads(json.dumps(metadata)))


@contextlib.contextmanager
def opening(folder: pathlib.Path) -> Iterator[None]:
  """Turns any failure of TFDS to read its own files into one InputError.

  Args:
    folder: where the dataset is, or would be built.

  Raises:
    InputError: anything went wrong, and the folder exists.
  """
  try:
    yield
  except Exception as error:
    if isinstance(error, InputError) or not folder.exists():
      raise
    if errors.of_system(error) is not None:  # no permission, say
      raise
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise InputError(
      f"{folder}: {_INFO} cannot be read: {lines[-1]}", _again(folder)
    ) from error


def is_built(folder: pathlib.Path) -> bool:
  """Whether the dataset is built.

  Raises:
    InputError: some of its files are missing.
  """
  if not folder.exists():
    return False
  names = (_INFO, _FEATURES, _METADATA)
  missing = [name for name in names if not (folder / name).is_file()]
  if missing:
    raise InputError(f"{folder} lacks {', '.join(missing)}", _again(folder))
  return True


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
  """Excludes other builds of this dataset; removes leftovers of killed ones.

  Args:
    folder: where the dataset will be.

  Raises:
    InputError: another process builds it.
  """
  with lock.holding(folder.parent, "building a dataset"):
    # TFDS builds beside the folder; a killed process leaves that folder.
    for left in folder.parent.glob(f"incomplete.*_{folder.name}"):
      shutil.rmtree(left, ignore_errors=True)
    yield


def check(builder: Builder, fingerprint: str) -> None:
  """Compares TFDS's JSON files with the build.

  Args:
    builder: builder of an existing dataset.
    fingerprint: that of the folder it should be built from.

  Raises:
    InputError: a file is damaged, or from another build.
  """
  folder = pathlib.Path(builder.data_dir)
  metadata = _metadata(folder)
  if metadata["fingerprint"] != fingerprint:
    raise InputError(
      f"{folder} was built from another folder: its fingerprint is "
      f"{metadata['fingerprint'][:12]}, not {fingerprint[:12]}",
      _again(folder),
    )
  with opening(folder):
    listed = {
      split: list(zip(info.filenames, info.shard_lengths, strict=False))
      for split, info in builder.info.splits.items()
    }
  built = {
    split: [(shard["name"], shard["images"]) for shard in shards]
    for split, shards in metadata[_SHARDS].items()
  }
  if listed != built:
    raise InputError(
      f"{folder / _INFO} is damaged: its splits are not those of the build",
      _again(folder),
    )
  with tempfile.TemporaryDirectory() as temporary:
    builder.info.features.save_config(temporary)
    wanted = json_files.read(pathlib.Path(temporary) / _FEATURES)
  if _read(folder / _FEATURES) != wanted:
    raise InputError(
      f"{folder / _FEATURES} is damaged: its features are not those of the "
      "build",
      _again(folder),
    )


def check_shards(builder: Builder, split: str) -> None:
  """Compares the files of a split with the build, byte by byte.

  Raises:
    InputError: one is missing, damaged, or from another build.
  """
  folder = pathlib.Path(builder.data_dir)
  shards = _metadata(folder)[_SHARDS].get(split, [])
  paths = [folder / shard["name"] for shard in shards]
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    digests = pool.map(_digest_or_fault, paths)
    for shard, digest in zip(shards, digests, strict=True):
      if digest != shard["sha256"]:
        what = digest if " " in digest else "is damaged, or from another build"
        raise InputError(
          f"{folder}: split {split!r} cannot be read: {shard['name']} {what}",
          _again(folder),
        )


def _metadata(folder: pathlib.Path) -> dict[str, Any]:
  path = folder / _METADATA
  metadata = _read(path, _FORM)
  claimed = metadata.pop(_SHA256)
  if claimed != _digest(metadata):
    raise InputError(
      f"{path} is damaged: it is not what the build wrote", _again(folder)
    )
  return metadata


def _read(path: pathlib.Path, form: Any = object) -> Any:
  """Parses a file that TFDS wrote; the remedy is to build it again."""
  try:
    return json_files.read(path, form)
  except InputError as error:
    raise InputError(error.problem, _again(path.parent)) from None


def _again(folder: pathlib.Path) -> str:
  return f"delete {folder}; it is built again from the images"


def _digest(content: Any) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _digest_or_fault(path: pathlib.Path) -> str:
  """sha256 of a file, or words that say why it cannot be read."""
  try:
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)
  except FileNotFoundError:
    return "is missing"
  except OSError as error:
    return f"cannot be read: {error.strerror or error}"


# A run opens its splits repeatedly; unchanged files are read once. The key
# includes size and modification time.
@functools.lru_cache(maxsize=4096)
def _sha256(path: pathlib.Path, *_: int) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


class ImageDigest:
  """sha256 over the names and contents of a split's images, in order."""

  def __init__(self):
    self._digest = hashlib.sha256()
    self._images = 0

  def add(self, name: str, image_sha256: str) -> None:
    """Adds one image; `image_sha256` is the digest of its bytes."""
    self._digest.update(f"{name} {image_sha256}\n".encode())
    self._images += 1

  def result(self) -> dict[str, Any]:
    """'images', how many there were, and 'sha256' over all of them."""
    return {"images": self._images, "sha256": self._digest.hexdigest()}


# Largest shard: TFDS holds its examples in memory while it writes it.
_BYTES, _IMAGES = 128 << 20, 8192


class Watch:
  """Shows a build's progress and digests the images that go into it."""

  def __init__(self, progress: Progress):
    self._progress = progress
    self._digests: dict[str, ImageDigest] = {}

  def take(self, split: str, record: Record, content: bytes) -> None:
    digest = self._digests.setdefault(split, ImageDigest())
    digest.add(record.name, hashlib.sha256(content).hexdigest())
    self._progress.advance()

  def results(self) -> dict[str, dict[str, Any]]:
    """See `ImageDigest.result`, by split."""
    return {split: d.result() for split, d in self._digests.items()}


def cuts(records: list[Record]) -> list[tuple[int, int]]:
  """(start, stop) of each shard: 128 MiB or 8192 images at most."""
  shards, start, size = [], 0, 0
  for index, record in enumerate(records):
    more = record.path.stat().st_size
    if index > start and (size + more > _BYTES or index - start == _IMAGES):
      shards.append((start, index))
      start, size = index, 0
    size += more
  return [*shards, (start, len(records))] if records else []
