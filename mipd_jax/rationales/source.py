"""Where the rationales of the training images come from.

In this order: the record's own texts (as the authors publish them), the texts
of a language model (`jrg`), templates.
"""

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from input_pipeline import schema
from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError
from mipd_jax.rationales import templates

if TYPE_CHECKING:
  from input_pipeline.dataset import Split
  from input_pipeline.ov_swig.vocabulary import Vocabulary

_LOG = logging.getLogger(__name__)
# The form of a line in the cache, and the remedy for a damaged one.
FORM = {"image": str, **dict.fromkeys(schema.RATIONALES, str)}
AGAIN = "delete the cache folder and prepare it again: --mode=prepare"
# The four texts of every image, in the order of `schema.RATIONALES`.
Texts = list[tuple[str, ...]]


# A dataset's own type of split, which may have more than `Split`.
_Own = TypeVar("_Own", bound="Split", contravariant=True)


class RationaleSource(Protocol[_Own]):
  """Writes rationales.

  Attributes:
    version: changes with the texts; part of the cache's plan.
  """

  version: str

  def write(self, split: _Own, vocabulary: "Vocabulary") -> Texts:
    """The four texts of every image of a split, in its order."""
    ...


class TemplateRationales:
  """Rationales by template, for records without texts of their own."""

  def __init__(self, seed: int = 0, definition_words: int = 8):
    """`definition_words`: words of a noun's definition in a gaze text."""
    self._seed, self._definition_words = seed, definition_words
    self.version = (
      f"{templates.VERSION} seed={seed} definition_words={definition_words}"
    )

  def write(self, split: "Split", vocabulary: "Vocabulary") -> Texts:
    columns = split.annotations()
    write = templates.RationaleWriter(
      vocabulary,
      # Training must not name an unseen verb, not even as a wrong answer.
      allowed_verbs=np.unique(columns[schema.VERB]),
      noun_pools=templates.noun_pools(vocabulary, columns),
      seed=self._seed,
      definition_words=self._definition_words,
    ).write
    if any(split.rationales(i) is None for i in range(len(split))):
      _LOG.warning(
        "No language model is given: rationales are written by template."
      )
    rows = zip(
      split.names,
      columns[schema.VERB].tolist(),
      columns[schema.NOUNS],
      columns[schema.BOXES],
      strict=True,
    )
    return [split.rationales(i) or write(*row) for i, row in enumerate(rows)]


def to_lines(names: tuple[str, ...], texts: Texts) -> str:
  """One JSON object per image: its name and the four texts."""
  lines = (
    json.dumps(
      {"image": name, **dict(zip(schema.RATIONALES, four, strict=True))}
    )
    for name, four in zip(names, texts, strict=True)
  )
  return "\n".join(lines) + "\n"


def from_lines(
  lines: str, names: Sequence[str], where: str = "the rationales"
) -> Texts:
  """The inverse of `to_lines`.

  Args:
    lines: its result.
    names: the images of the lines, in their order.
    where: the file's name in messages.

  Raises:
    InputError: a line is damaged, missing, or of another image.
  """
  records = read_lines(lines, where, FORM, AGAIN)
  for number, (record, name) in enumerate(zip(records, names, strict=False), 1):
    if record["image"] != name:
      raise InputError(
        f"{where}, line {number} is of image {record['image']!r}, expected "
        f"{name!r}",
        AGAIN,
      )
  if len(records) != len(names):
    raise InputError(
      f"{where} has {len(records)} lines for {len(names)} images", AGAIN
    )
  return [tuple(record[key] for key in schema.RATIONALES) for record in records]


def read_lines(text: str, where: str, form: Any, remedy: str) -> list[Any]:
  """Parses JSON lines; an error names the line by its number.

  Only a line feed ends a line: a text may hold other line separators.
  """
  lines = text.removesuffix("\n").split("\n") if text else []
  return [
    json_files.parse(line, f"{where}, line {number}", form, remedy)
    for number, line in enumerate(lines, 1)
  ]
