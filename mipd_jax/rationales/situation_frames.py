"""What JRG writes about: the annotated frames of situations."""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from input_pipeline import schema
from input_pipeline.ov_swig.vocabulary import Vocabulary
from mipd_jax.rationales import prompts, rules, templates
from mipd_jax.rationales.frame import AnnotatedFrame
from mipd_jax.rationales.judging import JrgConfig

if TYPE_CHECKING:
  from input_pipeline.dataset import Split


class Frames(Protocol):
  """The annotations of a split in words, and what a text of them must hold.

  Attributes:
    allowed: classes that a text may name, sorted; the others are unseen.
    rules: checks texts without a model.
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
  """See `Frames`; arguments as of `jrg.write_rationales`."""

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
