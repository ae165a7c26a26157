"""The two JSON files that describe a cache, and atomic writing of its files.

`manifest.json` of a finished cache holds its format, its plan, and length and
sha256 of every file; `building/plan.json` of an unfinished one holds only the
plan. Each has a digest of itself, so that damage is not taken for another
plan.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from input_pipeline.feature_cache.plan import AGAIN, FORMAT, CachePlan
from input_pipeline.io import atomic, json_files, paths
from input_pipeline.io.errors import InputError, is_full

TEMPORARY = ".tmp"


def full_disk(folder: Path, needed: int | None = None) -> InputError:
  """The error for a disk that has no space; `needed` in bytes."""
  free = "?"
  with contextlib.suppress(OSError):
    free = megabytes(shutil.disk_usage(folder).free)
  more = "" if needed is None else f"; {megabytes(needed)} are still to write"
  return InputError(
    f"no space left (or a file size limit reached) while writing the cache in "
    f"{folder}: {free} are free{more}",
    "free space there, or choose another cache folder; run the same command "
    "again and the finished shards are kept",
  )


def megabytes(size: int) -> str:
  return f"{size / 1e6:,.1f} MB"


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
  """Yields a temporary path; renames it to `path` if the block succeeds.

  The data is on the disk before the file gets its name. If the block fails,
  the temporary file is removed.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + TEMPORARY)
  try:
    yield temporary
    atomic.publish(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
  """Runs `write(temporary)` and renames; a full disk raises InputError."""
  try:
    with whole(path) as temporary:
      write(temporary)
  except (OSError, RuntimeError) as error:
    if is_full(error):
      raise full_disk(path.parent) from error
    raise


def sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, data: dict) -> None:
  text = json.dumps(data, indent=1, sort_keys=True) + "\n"
  write_whole(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path, shown: paths.AnyPath | None = None) -> object:
  """Parses a JSON file of a cache; `shown` is its name in messages.

  Raises:
    InputError: the file is damaged.
  """
  shown = shown or path
  try:
    return json_files.parse(json_files.read_text(path), str(path))
  except InputError as error:
    problem = error.problem.removeprefix(f"{path} ")
    raise InputError(
      f"{shown} cannot be read: it {problem}",
      "delete the cache folder and prepare it again",
    ) from error


def read_checked(path: Path, sha256: str | None) -> bytes:
  """The bytes of a small file; `sha256` is their digest when written.

  Raises:
    InputError: it cannot be read, or has other bytes.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise damaged(path, error.strerror or str(error)) from error
  if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
    raise damaged(path, "it is not what was written: its sha256 differs")
  return data


def damaged(path: Path, reason: str, records: Sequence[int] = ()) -> InputError:
  """The error for a damaged file of a cache."""
  which = f", record {', '.join(map(str, records[:5]))}" if records else ""
  return InputError(
    f"{path}{which} cannot be read: {reason}",
    "delete that file and prepare the cache again into the same folder",
  )


MANIFEST = "manifest.json"
BUILDING = "building"
PLAN = "plan.json"
_FILE = {"bytes": int, "sha256": str}
# Optional keys of a file's entry; see `shard.ShardWriter.remarks`.
_REMARKS = {"records": int, "marks": str, "int8": {str: [float]}}
_FORM = {"plan": object, "digest": str}
_MANIFEST_FORM = {
  **_FORM,
  "plan_hash": str,
  "files": {str: _FILE},
  "libraries": {str: str},
}
_OLD = (
  "; an older format doesn't say which code made the cache, nor could damage "
  "to its records be seen"
)


@dataclasses.dataclass(frozen=True)
class Manifest:
  """The description of a cache.

  Attributes:
    plan: what the cache holds.
    files: bytes, sha256 and remarks of each file, by path below the folder.
      Empty while the cache is unfinished.
    libraries: versions of the libraries that computed the features.
  """

  plan: CachePlan
  files: Mapping[str, Mapping]
  libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read(path: pathlib.Path, shown: paths.AnyPath | None = None) -> Manifest:
  """Reads manifest.json or plan.json.

  Args:
    path: the file.
    shown: its name in messages, if `path` is a copy.

  Raises:
    InputError: it is damaged, or of another format.
  """
  shown = shown or path
  data = read_json(path, shown)
  json_files.check(data, {str: object}, str(shown), AGAIN)
  version = data.get("format")  # none in the oldest plan.json
  if type(version) is not int and (version is not None or path.name != PLAN):
    raise InputError(f"{shown} names no format of a cache", AGAIN)
  if version != FORMAT:
    raise InputError(
      f"{shown} has format {version}, not {FORMAT}"
      + (_OLD if (version or 0) < FORMAT else "; a newer version wrote it"),
      AGAIN,
    )
  finished = path.name == MANIFEST
  json_files.check(
    data, _MANIFEST_FORM if finished else _FORM, str(shown), AGAIN
  )
  if _digest(data) != data["digest"]:
    raise InputError(
      f"{shown} is not as it was written: its digest differs", AGAIN
    )
  plan = CachePlan.from_json(data["plan"], str(shown))
  if not finished:
    return Manifest(plan, {})
  for name, entry in data["files"].items():
    check_entry(entry, f"{shown}: {name}")
  names = {shard.path for shard in plan.all_shards()}
  if missing := sorted(names - data["files"].keys()):
    raise InputError(
      f"{shown} doesn't list {len(missing)} files of its plan, the first is "
      f"{missing[0]}",
      AGAIN,
    )
  return Manifest(plan, data["files"], data["libraries"])


def check_entry(entry: object, where: str) -> None:
  """Raises InputError unless this is a valid entry of a file."""
  json_files.check(entry, _FILE, where, AGAIN)
  form = {name: x for name, x in _REMARKS.items() if name in entry}
  json_files.check(entry, form, where, AGAIN)


def write_plan(path: pathlib.Path, plan: CachePlan) -> None:
  """Writes the plan.json of an unfinished cache."""
  _write(path, {"plan": plan.to_json()})


def write(path: pathlib.Path, manifest: Manifest) -> None:
  """Writes the manifest.json of a finished cache."""
  plan = manifest.plan
  _write(
    path,
    {
      "plan_hash": plan.plan_hash,
      "plan": plan.to_json(),
      "files": dict(manifest.files),
      "libraries": dict(manifest.libraries),
    },
  )


def _write(path: pathlib.Path, content: Mapping) -> None:
  content = {"format": FORMAT, **content}
  write_json(path, {**content, "digest": _digest(content)})


def _digest(data: Mapping) -> str:
  rest = {name: value for name, value in data.items() if name != "digest"}
  text = json.dumps(rest, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
