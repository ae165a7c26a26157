"""Mode predict: a trained student on any images, with any words.

OUT/predictions.jsonl   one object per image, in order of the file names
OUT/pictures/*.jpg      each image with boxes, legend and sentence
OUT/index.html          shows them all

--config.eval.predictions=FILE also writes that file, in the form that
`python -m mipd_jax.metrics.swig` scores.
"""

import collections
import contextlib
import dataclasses
import glob
import json
import os
import pathlib
import re
from collections.abc import Sequence

import jax
from absl import logging

from input_pipeline.io import atomic, paths
from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress
from mipd_jax.config import Config
from mipd_jax.evaluation import predictions
from mipd_jax.inference import Failure, Prediction, Predictor, Words, words_file
from mipd_jax.inference import pictures as image_lib
from mipd_jax.report import drawing, pages

PREDICTIONS, PICTURES, PAGE = "predictions.jsonl", "pictures", "index.html"
_TOP_K = 5
_NAMED = 10  # files named in a message
_SHOWN = 3  # guesses shown on the page; the JSON lines have all


@dataclasses.dataclass(frozen=True)
class Request:
  """The request of the command line.

  Attributes:
    images: a file, a folder, or a pattern with *, ? and **.
    out: folder for the results.
    vocabulary: words.yaml, "" for the workdir's own words.
  """

  images: str
  out: str
  vocabulary: str = ""


def predict(config: Config, request: Request) -> None:
  """Predicts for all images and writes the results.

  Other files in a folder or pattern are listed and skipped, unless they are
  named like images. Pictures of an earlier run in the same folder are deleted
  once the new ones are there.

  Raises:
    InputError: something is missing or wrong, raised before any work; or some
      images could not be read, raised after all others are done.
  """
  if jax.process_count() > 1:
    raise InputError(
      "--mode=predict runs in one process", "leave --coordinator out"
    )
  # Shells do not expand the ~ of --out=~/results.
  request = dataclasses.replace(request, out=os.path.expanduser(request.out))
  files = find_images(request)
  words = Words()
  if request.vocabulary:
    words = words_file.read(request.vocabulary)
  atomic.check_folder(request.out, "--out")
  if scored := config.eval.predictions:
    atomic.check_target(scored, "--config.eval.predictions")
    _check_names(files)
  predictor = Predictor.from_workdir(config.workdir, config=config)
  out = paths.path(request.out)
  former, left = _former(out)
  results = predictor.predict_each(
    files, words, _TOP_K, every_frame=bool(scored)
  )
  entries: list[pages.Entry] = []
  failed: list[tuple[str, str]] = []
  foreign: list[tuple[str, str]] = []
  with contextlib.ExitStack() as stack:
    lines = stack.enter_context(atomic.replacing(out / PREDICTIONS))
    file = stack.enter_context(lines.open("w", encoding="utf-8"))
    add = None
    if scored:
      add = stack.enter_context(predictions.writing(scored))
    progress = stack.enter_context(Progress("predict", len(files), "images"))
    for number, result in enumerate(results, 1):
      if isinstance(result, Prediction):
        result = _drawn(result, number, out, entries)
      if isinstance(result, Failure):
        logging.warning("%s", result.error.problem)
        kind = foreign if _is_foreign(result, request) else failed
        kind.append((image_lib.shown(result.name), result.reason))
      if add and isinstance(result, Prediction):
        add(os.path.basename(result.name), _entry_to_score(result))
      file.write(_line(result))
      file.flush()  # so that after a kill the next run knows its pictures
      progress.advance()
  pages.write_gallery(
    out / PAGE,
    entries,
    title=f"{config.name}: {request.images}",
    about=_about(predictor, len(entries), request),
    failed=failed + foreign,
  )
  for picture in former - {entry.picture for entry in entries}:
    (out / picture).unlink(missing_ok=True)
  for path in left:
    path.unlink(missing_ok=True)
  logging.info("%d images; the page is %s.", len(entries), out / PAGE)
  if foreign and entries:
    names = ", ".join(name for name, _ in foreign[:_NAMED])
    more = f" and {len(foreign) - _NAMED} more" if foreign[_NAMED:] else ""
    logging.warning("%d files are no images: %s%s", len(foreign), names, more)
  if failed or not entries:
    _complain(failed + foreign * (not entries), len(files), out)


def _is_foreign(result: Failure, request: Request) -> bool:
  """Whether it is a file of a folder or pattern that is no image."""
  if os.path.isfile(os.path.expanduser(request.images)):
    return False
  return not image_lib.named_as_image(result.name)


def _check_names(files: Sequence[str]) -> None:
  """Refuses equal names: scored files name images without folders."""
  count = collections.Counter(map(os.path.basename, files))
  twice = [name for name, times in count.items() if times > 1]
  if twice:
    raise InputError(
      f"{count[twice[0]]} images are named {image_lib.shown(twice[0])}; "
      "--config.eval.predictions tells images apart by that name",
      "give one folder at a time, or rename them",
    )


def _entry_to_score(result: Prediction) -> predictions.Entry:
  """The listed verbs, each with its frame."""
  frames = {
    verb: {
      role.role: predictions.filler(
        role.nouns[0].class_id or role.nouns[0].noun, role.box
      )
      for role in roles
    }
    for verb, roles in result.frames.items()
  }
  return predictions.entry(list(frames), frames)


def _line(result: Prediction | Failure) -> str:
  """One line of JSON; a name that is not UTF-8 keeps its bytes as escapes."""
  values = result.to_dict()
  line = json.dumps(values, ensure_ascii=False)
  try:
    line.encode("utf-8")
  except UnicodeEncodeError:
    line = json.dumps(values)
  return line + "\n"


def _picture_name(number: int, image: str) -> str:
  return f"{PICTURES}/{number:05d}-{_plain(image)}.jpg"


def _former(out: paths.AnyPath) -> tuple[set[str], list[pathlib.Path]]:
  """Pictures that earlier runs wrote there, by their own predictions.jsonl.

  Returns:
    The pictures, and the partial predictions.jsonl of a killed run.
  """
  if paths.is_remote(out) or not out.is_dir():
    left = []
  else:
    stem, suffix = os.path.splitext(PREDICTIONS)
    left = sorted(out.glob(f".{stem}.*.tmp{suffix}"))
  pictures = set()
  for path in (out / PREDICTIONS, *left):
    lines = path.read_bytes().split(b"\n") if path.exists() else ()
    for number, line in enumerate(lines, 1):
      try:
        pictures.add(_picture_name(number, json.loads(line)["image"]))
      except (ValueError, KeyError, TypeError, RecursionError):
        continue  # the empty last line, or a line that is not ours
  return pictures, left


def find_images(request: Request) -> list[str]:
  """The files that the request names, sorted, without earlier results.

  Raises:
    InputError: there are none.
  """
  pattern = os.path.expanduser(request.images)
  if paths.is_remote(pattern):
    raise InputError(
      f"--images={request.images} is in a bucket or on the network",
      "copy the images to this machine first",
    )
  if os.path.isdir(pattern):
    pattern = os.path.join(glob.escape(pattern), "*")
  matches = [pattern] if os.path.isfile(pattern) else []
  matches = matches or glob.glob(pattern, recursive=True)
  # "photos [1]/*.jpg": brackets may be part of the name.
  matches = matches or glob.glob(pattern.replace("[", "[[]"), recursive=True)
  ours = pathlib.Path(request.out).absolute()
  files = [
    name
    for name in sorted(matches)
    if os.path.isfile(name)
    and pathlib.Path(name).absolute().parent != ours / PICTURES
    and pathlib.Path(name).absolute() not in (ours / PREDICTIONS, ours / PAGE)
  ]
  if not files:
    raise InputError(
      f"--images={request.images} names no file",
      "give a file, a folder, or a pattern in quotes: --images='photos/*.jpg'",
    )
  return files


def _drawn(
  result: Prediction,
  number: int,
  out: paths.AnyPath,
  entries: list[pages.Entry],
) -> Prediction | Failure:
  """Draws one picture and adds its entry to the page."""
  try:
    picture = image_lib.open_image(result.name, result.name)
  except InputError as error:  # gone or changed since it was read
    return Failure(result.name, error)
  drawn = drawing.draw_annotated(as_annotated(result, picture))
  name = _picture_name(number, result.name)
  with atomic.replacing(out / name) as path:
    drawn.image.save(path, quality=90, subsampling=0)
  size = (drawn.image.width, drawn.picture_height)
  entries.append(_entry(result, name, size))
  return result


def as_annotated(
  result: Prediction, picture: image_lib.Picture
) -> drawing.Annotated:
  """A prediction in the form that is drawn."""
  shares = {guess.verb: guess.probability for guess in result.verbs}
  return drawing.Annotated(
    image=picture.pixels,
    width=result.width,
    height=result.height,
    verb=result.verb,
    probability=shares.get(result.verb),
    roles=[
      drawing.Role(
        role.role, role.nouns[0].noun, role.nouns[0].probability, role.box
      )
      for role in result.roles
    ],
    sentence=result.sentence,
  )


def _entry(
  result: Prediction, picture: str, size: tuple[int, int]
) -> pages.Entry:
  return pages.Entry(
    name=result.name,
    picture=picture,
    size=size,
    sentence=result.sentence,
    verbs=[(v.verb, v.probability) for v in result.verbs[:_SHOWN]],
    roles=[
      pages.RoleRow(
        role.role,
        [(n.noun, n.probability) for n in role.nouns[:_SHOWN]],
        role.box is not None,
      )
      for role in result.roles
    ],
    notes=result.notes,
  )


def _plain(name: str) -> str:
  """A file name that works on every system and web server."""
  stem = re.sub(r"[^A-Za-z0-9._-]+", "_", pathlib.Path(name).stem)
  return stem.strip("._")[:60] or "image"


def _about(predictor: Predictor, count: int, request: Request) -> str:
  words = request.vocabulary or "the vocabulary of training"
  return f"{count} images, checkpoint of step {predictor.step}, words: {words}"


def _complain(
  failed: Sequence[tuple[str, str]], total: int, out: paths.AnyPath
) -> None:
  lines = [f"\n  - {name}: {why}" for name, why in failed[:_NAMED]]
  if len(failed) > _NAMED:
    lines.append(f"\n  - and {len(failed) - _NAMED} more")
  others = f"the others are in {out}"
  raise InputError(
    f"{len(failed)} of {total} images could not be read; "
    f"{others if len(failed) < total else 'none is left'}:{''.join(lines)}",
    f"mend these files or leave them out; {out / PREDICTIONS} names them all",
  )
