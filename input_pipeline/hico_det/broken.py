"""Images and entries that cannot be used, left out where that is allowed.

Labels of `trainval_hico.json` may point to boxes that are not there: readers
of QPIC and GEN-VLKT pass over such images without a word. Here they are named
and counted.
"""

from collections.abc import Callable, Iterable
from concurrent import futures

from input_pipeline.hico_det import folder
from input_pipeline.hico_det.folder import Layout
from input_pipeline.hico_det.records import ImageLabels, Record
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress
from input_pipeline.ov_swig.records import RecordError

_CHUNK = 64  # images a thread reads at a time
_THREADS = 8  # they wait for the disk most of the time
_GET = "put it there, or take its entry out of the file"


def read_records(
  layout: Layout,
  split: str,
  words: Vocabulary,
  *,
  read_images: bool,
  base: int | None = None,
) -> tuple[list[Record], list[RecordError]]:
  """Records of a split that can be used, and what is wrong with the others.

  Args:
    layout, split, words, base: see `folder.read_records`.
    read_images: whether images are decoded, so that broken ones go too.

  Raises:
    InputError: the file as a whole cannot be used, or nothing is left.
  """
  errors: list[RecordError] = []
  found = folder.read_labels(
    layout, split, words, base=base, report=errors.append
  )
  total = len(found) + len(errors)
  there = layout.image_sizes(split)

  def usable(item: ImageLabels) -> Record | RecordError:
    try:
      if item.name not in there:
        raise RecordError(item.place, "missing", "the image is missing", _GET)
      record = folder.to_record(item, words)
      if read_images:
        record.read_image()
      return record
    except RecordError as error:
      return error

  records = []
  for item in _each(found, usable, f"look for broken images, {split}"):
    (errors if isinstance(item, RecordError) else records).append(item)
  if not records:
    raise InputError(
      f"none of {total} images of the split {split!r} can "
      f"be used; the first: {errors[0].problem}",
      "download images and annotations again",
    )
  return records, errors


def _each(
  found: list[ImageLabels],
  function: Callable[[ImageLabels], Record | RecordError],
  what: str,
) -> Iterable[Record | RecordError]:
  """The function of each in order, on threads."""
  chunks = [found[i : i + _CHUNK] for i in range(0, len(found), _CHUNK)]

  def run(chunk: list[ImageLabels]) -> list[Record | RecordError]:
    return [function(item) for item in chunk]

  with (
    Progress(what, len(found), "images") as progress,
    futures.ThreadPoolExecutor(_THREADS) as pool,
  ):
    for results in pool.map(run, chunks):
      yield from results
      progress.advance(len(results))
