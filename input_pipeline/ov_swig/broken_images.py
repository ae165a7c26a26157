"""Images that cannot be read or decoded, left out where that is allowed."""

from concurrent import futures

from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress
from input_pipeline.ov_swig.record_files import Row, Rows
from input_pipeline.ov_swig.records import RecordError

_CHUNK = 64  # images a thread reads at a time
_THREADS = 8  # they wait for the disk most of the time


def take_out(rows: Rows, split: str) -> list[RecordError]:
  """Takes the records of such images out of a split.

  An image of another size than its record says stays: its boxes were drawn
  on another picture, which is no accident of one file.

  Args:
    rows: records by image name; those taken out are gone from it.
    split: its name.

  Returns:
    What is wrong with each image that was taken out, in the order of `rows`.

  Raises:
    InputError: no image of the split would be left.
  """
  names = list(rows)
  chunks = [names[i : i + _CHUNK] for i in range(0, len(names), _CHUNK)]

  def check(chunk: list[str]) -> list[RecordError | None]:
    return [_problem(rows[name]) for name in chunk]

  found: dict[str, RecordError] = {}
  with (
    Progress(f"look for broken images, {split}", len(names), "images") as bar,
    futures.ThreadPoolExecutor(_THREADS) as pool,
  ):
    for chunk, errors in zip(chunks, pool.map(check, chunks), strict=True):
      pairs = zip(chunk, errors, strict=True)
      found |= {name: error for name, error in pairs if error is not None}
      bar.advance(len(chunk))
  if names and len(found) == len(names):
    raise InputError(
      f"all {len(names)} images of the split {split!r} are broken; the first: "
      f"{found[names[0]].problem}",
      "copy or download the image folder again",
    )
  for name in found:
    del rows[name]
  return list(found.values())


def _problem(row: Row) -> RecordError | None:
  try:
    row.place.read_image(None)
  except RecordError as error:
    return error
  return None
