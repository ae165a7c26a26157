"""JRG, the judgmental rationales generator (METHOD, part 1).

A language model writes the four texts of an image from its annotated frame.
Each text is checked by rules, then judged by the same model. A rejected text
is written again, with the reason; after the last attempt a template replaces
it. All texts of many images go through the model together.

Every text depends only on the frame, the settings and the model: not on the
batch, nor on where an earlier run was stopped.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from input_pipeline import schema
from input_pipeline.feature_cache import source_code
from input_pipeline.io.progress import Progress
from input_pipeline.ov_swig.vocabulary import Vocabulary
from mipd_jax.rationales import jrg_report, prompts, rules, templates
from mipd_jax.rationales.frame import AnnotatedFrame
from mipd_jax.rationales.judging import (
  Jrg,
  JrgConfig,
  Texts,
  Writer,
  keeping,
)
from mipd_jax.rationales.store import CODE, Store

if TYPE_CHECKING:
  from input_pipeline.dataset import Split


class Frames(Protocol):
  """The annotations of a split in words, and the rules for texts on them.

  Attributes:
    allowed: classes that a text may name, sorted; the others are unseen.
    rules: check texts without a model.
  """

  allowed: list[int]
  rules: rules.Rules

  def frame(self, row: int) -> AnnotatedFrame:
    """An image's annotation, and a plausible wrong one."""
    ...

  def digest(self) -> str:
    """sha256 of all annotations."""
    ...


class SituationFrames:
  """See `Frames`; arguments as in `jrg.write_rationales`."""

  def __init__(
    self,
    split: "Split",
    vocabulary: Vocabulary,
    config: JrgConfig,
    allowed_verbs: Iterable[int] | None = None,
  ):
    self._names, self._columns = split.names, split.annotations()
    verbs = self._columns[schema.VERB]
    self.allowed = sorted(
      {int(v) for v in (verbs if allowed_verbs is None else allowed_verbs)}
    )
    self._writer = templates.RationaleWriter(
      vocabulary,
      allowed_verbs=self.allowed,
      noun_pools=templates.noun_pools(vocabulary, self._columns),
      seed=config.seed,
      definition_words=config.definition_words,
    )
    style = prompts.STYLES[config.style]
    self.rules = rules.Rules(vocabulary, self.allowed, style, config.max_words)

  def frame(self, row: int) -> AnnotatedFrame:
    return self._writer.frame(
      self._names[row],
      int(self._columns[schema.VERB][row]),
      self._columns[schema.NOUNS][row],
      self._columns[schema.BOXES][row],
    )

  def digest(self) -> str:
    columns = hashlib.sha256()
    for key in (schema.VERB, schema.NOUNS, schema.BOXES):
      columns.update(np.ascontiguousarray(self._columns[key]).tobytes())
    return columns.hexdigest()


VERSION = f"jrg-1 {prompts.VERSION} {rules.VERSION} {templates.VERSION}"
_LOG = logging.getLogger(__name__)
_NONE = ("",) * len(schema.RATIONALES)


class JrgRationales:
  """A source of rationales for the cache, see `source.RationaleSource`."""

  def __init__(
    self,
    model: Writer | None,
    out: str | os.PathLike,
    config: JrgConfig | None = None,
    given: Mapping[str, Texts] | None = None,
    frames: Callable[..., Frames] = SituationFrames,
  ):
    """Arguments as in `write_rationales`."""
    self._model, self._out, self._given = model, out, dict(given or {})
    self._frames = frames
    self._config = config or JrgConfig()
    self.version = (
      f"{VERSION} {model.revision if model else 'no model'} "
      f"{_digest(dataclasses.asdict(self._config))} {_digest(self._given)}"
    )

  def write(self, split: "Split", vocabulary: Vocabulary) -> list[Texts]:
    """The four texts of every image of the split, in its order."""
    texts = write_rationales(
      split,
      vocabulary,
      self._model,
      self._out,
      self._config,
      given=self._given,
      frames=self._frames,
    )
    return [texts[name] for name in split.names]


def write_rationales(
  split: "Split",
  vocabulary: Vocabulary,
  model: Writer | None,
  out: str | os.PathLike,
  config: JrgConfig | None = None,
  *,
  given: Mapping[str, Texts] | None = None,
  allowed_verbs: Iterable[int] | None = None,
  records: Mapping[str, Mapping[str, Any]] | None = None,
  frames: Callable[..., Frames] = SituationFrames,
) -> dict[str, Texts]:
  """Writes the rationales of a split, continues a run, or reads a complete one.

  Args:
    split: images with annotations; its own texts are taken as they are.
    vocabulary: names and texts.
    model: a language model; None takes templates, with a warning.
    out: JSON to write; see `store` for the files beside it.
    config: the settings; the defaults if None.
    given: other texts to take as they are, from `store.load_texts`.
    allowed_verbs: verbs that a text may name; those of the split if None,
      which in training are the seen and rare ones.
    records: further fields of each image for `out`.
    frames: (split, vocabulary, config, allowed_verbs) -> the frames.

  Returns:
    The four texts by image in the order of `schema.RATIONALES`.

  Raises:
    InputError: `out` belongs to other settings; the split has fewer than two
      verbs; a prompt is too long for the model.
  """
  config = config or JrgConfig()
  run = _Run(split, vocabulary, config, given or {}, allowed_verbs, frames)
  store = Store(out, run.settings(model, with_records=records is not None))
  if store.is_complete:
    store.clean()
    return store.texts(split.names)
  if model is None and run.lacks_texts:
    _LOG.warning(
      "No language model is given: rationales are written by template."
    )
  jrg = Jrg(model, run.checks, config)
  done = sum(len(rows) for i, rows in run.parts() if store.has_part(i))
  with Progress("rationales", len(split), "images", done) as progress:
    for index, rows in run.parts():
      if not store.has_part(index):
        with keeping(model, store.answers(index)):
          written = jrg.write(run.frames(rows), run.texts(rows))
        store.write_part(index, written)
        progress.advance(len(rows))
  parts = [
    (index, [split.names[row] for row in rows]) for index, rows in run.parts()
  ]
  return _finish(store, parts, records)


def _finish(
  store: Store,
  parts: Iterable[tuple[int, Sequence[str]]],
  records: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, Texts]:
  report, texts = jrg_report.Report(), {}
  for index, images in parts:
    written = store.read_part(index, images)
    report.add(written)
    for record in written:
      four = tuple(record["texts"][kind] for kind in schema.RATIONALES)
      texts[record["image"]] = four
  store.finish(texts, report.to_json(), report.to_markdown(), records)
  rate = report.to_json()["acceptance_rate"]
  _LOG.info(
    "Rationales of %d images in %s; accepted from the model: %s",
    len(texts),
    store.out,
    "none asked" if rate is None else f"{100 * rate:.1f} %",
  )
  return texts


class _Run:
  """The inputs of a run: frames and given texts by position."""

  def __init__(
    self,
    split: "Split",
    vocabulary: Vocabulary,
    config: JrgConfig,
    given: Mapping[str, Texts],
    allowed_verbs: Iterable[int] | None,
    frames: Callable[..., Frames] = SituationFrames,
  ):
    self._split, self._words, self._config = split, vocabulary, config
    self._given = given
    self._frames = frames(split, vocabulary, config, allowed_verbs)
    self.checks = self._frames.rules

  def parts(self) -> list[tuple[int, range]]:
    size, total = self._config.images_per_part, len(self._split)
    starts = range(0, total, size)
    return [
      (index, range(start, min(start + size, total)))
      for index, start in enumerate(starts)
    ]

  def frames(self, rows: Sequence[int]) -> list[AnnotatedFrame]:
    return [self._frames.frame(row) for row in rows]

  def texts(self, rows: Sequence[int]) -> list[Texts]:
    """The texts that exist already: the record's own, then the given ones."""
    return [
      self._split.rationales(row)
      or self._given.get(self._split.names[row])
      or _NONE
      for row in rows
    ]

  @functools.cached_property
  def _all_texts(self) -> list[Texts]:
    return self.texts(range(len(self._split)))

  @property
  def lacks_texts(self) -> bool:
    return not all(all(four) for four in self._all_texts)

  def settings(
    self, model: Writer | None, *, with_records: bool
  ) -> dict[str, Any]:
    """Everything that the output depends on."""
    return {
      "version": VERSION,
      "model": model.revision if model else None,
      **dataclasses.asdict(self._config),
      "vocabulary": self._words.fingerprint,
      "allowed_verbs": _digest(self._frames.allowed),
      "images": _digest(list(self._split.names)),
      "annotations": self._frames.digest(),
      "given": _digest(self._all_texts),
      "with_records": with_records,
      **self._code(model),
    }

  def _code(self, model: Writer | None) -> dict[str, str]:
    """The modules that write, each with a digest of its code."""
    entries = source_code.entries_of(write_rationales, self._frames, model)
    digests = source_code.reached(entries)
    return {f"{CODE}{module}": digest for module, digest in digests.items()}


def _digest(content: Any) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
