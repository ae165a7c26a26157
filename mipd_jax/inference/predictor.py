"""The predictor: images and words in, plain values out."""

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from PIL import Image

from input_pipeline import geometry
from input_pipeline.io import ahead
from input_pipeline.io.errors import InputError
from mipd_jax.config import Config
from mipd_jax.devices import sharding
from mipd_jax.inference import pictures as image_lib
from mipd_jax.inference import workdir
from mipd_jax.inference.lexicon import Lexicon
from mipd_jax.inference.results import Failure, Prediction
from mipd_jax.inference.runner import Lists, Runner, Seen
from mipd_jax.inference.texts import Texts
from mipd_jax.inference.word_lists import Lexicons
from mipd_jax.inference.words import Words, clean

BATCH_SIZE = 16
_READERS = 4  # decoding threads; more would only hold more images
_KEPT = 8  # lists of words that stay on the devices
Given = str | Sequence[str | None] | None


class Predictor:
  """A trained student, ready for any image and any words.

  Attributes:
    vocabulary: the words of training.
    config: of the run.
    step: of the checkpoint.
    batch_size: images at once, over all devices.
  """

  def __init__(self, opened: workdir.Opened, mesh: Mesh, batch_size: int):
    """Use `from_workdir`."""
    self.vocabulary, self.config = opened.words, opened.config
    self.step = opened.step
    self.batch_size = batch_size + -batch_size % mesh.shape[sharding.DATA]
    self._side = opened.encoder.image_size
    self._runner = Runner(opened, mesh, self.batch_size)
    texts = Texts(
      opened.load_text_encoder, opened.text_revision, mesh, opened.folder
    )
    self._lexicons = Lexicons(
      opened.words,
      opened.banks,
      texts,
      queries_from_text=opened.config.model.role_queries == "text",
    )
    self._kept: dict[tuple, Lists] = {}

  @classmethod
  def from_workdir(
    cls,
    folder: str | os.PathLike[str],
    *,
    batch_size: int = BATCH_SIZE,
    devices: Sequence[jax.Device] | None = None,
    config: Config | None = None,
  ) -> "Predictor":
    """Loads the best checkpoint of a work directory.

    Folders in its config.json are relative to the current directory.

    Args:
      folder: WORK, of a run that has trained.
      batch_size: images at once; rounded up to a multiple of the devices.
      devices: all of this process if None.
      config: for a folder without a config.json (an imported checkpoint).

    Raises:
      InputError: something is missing, or parts do not belong together.
    """
    if batch_size < 1:
      raise InputError(f"batch_size is {batch_size}", "give 1 or more")
    devices = jax.local_devices() if devices is None else devices
    mesh = sharding.make_mesh(devices=devices)
    return cls(workdir.open_workdir(folder, mesh, config), mesh, batch_size)

  def predict(
    self,
    images: Any,
    verbs: Any = None,
    nouns: Any = None,
    frames: Any = None,
    top_k: int = 5,
    *,
    given: Given = None,
  ) -> Any:
    """Predicts the activity, who takes part in it, and where.

    Args:
      images: one image or a list: paths, Pillow images or arrays (see
        `pictures.open_image`); an array [B, H, W, 3] is a list.
      verbs, nouns, frames: lists to choose from, as `Words.of` takes them;
        the workdir's own if None. `verbs` may be a whole `Words`.
      top_k: guesses of verbs, and of nouns for each role.
      given: the verb, if it is known; its frame is filled. One for all images,
        or one for each.

    Returns:
      A `Prediction` for one image, a list of them for a list.

    Raises:
      InputError: a word or an image cannot be used; names the first image.
    """
    many, sources = _listed(images)
    words = verbs
    if not isinstance(verbs, Words):
      words = Words.of(verbs, nouns, frames)
    results = []
    for result in self.predict_each(sources, words, top_k, given=given):
      if isinstance(result, Failure):
        raise result.error
      results.append(result)
    return results if many else results[0]

  def predict_each(
    self,
    images: Sequence[image_lib.Source],
    words: Words | None = None,
    top_k: int = 5,
    *,
    given: Given = None,
    every_frame: bool = False,
  ) -> Iterator[Prediction | Failure]:
    """`predict`, one result after the other; a bad image is a `Failure`.

    `every_frame` fills `Prediction.frames` for each listed verb.

    Words are checked, and new ones embedded, at the call. Memory is bounded by
    the batch, not by the number or the size of images.
    """
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
      raise InputError(f"top_k is {top_k!r}", "give a whole number from 1")
    lists = self._lists(words or Words())
    verbs = _positions(given, len(images), lists.lexicon)
    jobs = list(zip(images, range(len(images)), verbs, strict=True))
    return self._results(jobs, lists, (top_k, every_frame))

  def _results(self, jobs, lists, options) -> Iterator[Prediction | Failure]:
    """Decodes one batch while the devices work on the one before."""
    read = ahead.in_order(self._read, jobs, _READERS, ahead=self.batch_size)
    with contextlib.closing(read):
      while batch := list(itertools.islice(read, self.batch_size)):
        yield from self._batch(batch, lists, options)

  def _read(self, job: tuple[Any, int, int | None]) -> Seen | Failure:
    source, index, verb = job
    name = image_lib.name_of(source, index)
    try:
      picture = image_lib.open_image(source, name)
    except InputError as error:
      return Failure(name, error)
    return Seen(
      name=name,
      place=geometry.Letterbox(picture.height, picture.width),
      pixels=geometry.letterbox_image(picture.pixels, self._side),
      notes=picture.notes,
      verb=verb,
    )

  def _batch(self, read, lists, options) -> Iterator[Prediction | Failure]:
    seen = [item for item in read if isinstance(item, Seen)]
    predictions = iter(self._runner.run(seen, lists, *options) if seen else ())
    for item in read:
      yield next(predictions) if isinstance(item, Seen) else item

  def _lists(self, words: Words) -> Lists:
    """The words' arrays on the devices; the latest few stay there."""
    key = words.verbs, words.nouns, tuple(words.frames.items())
    if key not in self._kept:
      self._kept[key] = self._runner.lists(self._lexicons.make(words))
      if len(self._kept) > _KEPT:
        del self._kept[next(iter(self._kept))]
    return self._kept[key]


def _listed(images: Any) -> tuple[bool, list]:
  """Whether it is a list, and the list."""
  if isinstance(images, (str, os.PathLike, Image.Image)):
    return False, [images]
  if hasattr(images, "dtype") and getattr(images, "ndim", 0) not in (1, 4):
    return False, [images]
  if image_lib.is_content(images):
    raise image_lib.no_content(image_lib.name_of(None, 0))
  if not isinstance(images, Iterable) or isinstance(images, Mapping):
    raise InputError(
      f"images: a {type(images).__name__} is no image and no list of images",
      "give paths, Pillow images or arrays [H, W, 3]",
    )
  return True, list(images)


def _positions(given: Given, count: int, lexicon: Lexicon) -> list[int | None]:
  """Place in the list of each image's given verb, None where not given."""
  if given is None or isinstance(given, str):
    given = [given] * count
  if len(given) != count:
    raise InputError(
      f"{len(given)} verbs are given for {count} images",
      "give one verb, or one for each image",
    )
  return [None if name is None else _position(lexicon, name) for name in given]


def _position(lexicon: Lexicon, verb: str) -> int:
  place = lexicon.position.get(clean(verb, "verb").casefold())
  if place is None:
    raise InputError(
      f"the verb {verb!r} is given, but is not in the list of verbs",
      "add it to the list: verbs={...: None}",
    )
  return place
