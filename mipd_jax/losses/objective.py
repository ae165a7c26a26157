"""What is minimised: a tuple of terms; each term says what it reads.

Each task has such a tuple (`situations.TERMS`, `interactions.TERMS`). All else
follows from it: the terms' sum, the parts of the cache that training loads,
the terms that need the teacher branch, preset `no_distillation`, and the
fields of a config that a task does not read.
"""

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from input_pipeline import schema
from mipd_jax.losses.config import LossConfig
from mipd_jax.losses.terms import Term

Metrics = dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Given:
  """The inputs of a term: those that it says it reads, and no others.

  Attributes:
    outputs: of the model, by the names in `models.outputs`.
    batch: by the keys of `input_pipeline.schema`.
    banks: text embeddings, and what is in `losses.banks`.
    settings: fields of the losses' settings.
    target: the teacher's output that the term is about; None for a term of
      the student alone.
  """

  outputs: Mapping[str, Array]
  batch: Mapping[str, Array]
  banks: Mapping[str, Array]
  settings: Any
  target: Array | None


@dataclasses.dataclass(frozen=True)
class LossTerm:
  """One term of the objective; it sees only what is named here.

  Attributes:
    name: its name in logs, and that of its weight in the settings.
    value: computes the term of a batch. It may count filler examples: the
      objective masks them.
    target: output of the teacher branch that the term is about; "" for a term
      of the student alone. A model without this output leaves the term out.
    outputs, batch, banks: what else it reads of each.
    sources: field of the settings -> its values -> key of the batch that is
      read for that value.
    fields: fields of the settings that it reads, besides its weight.
  """

  name: str
  value: Callable[[Given], Term]
  target: str = ""
  outputs: tuple[str, ...] = ()
  batch: tuple[str, ...] = ()
  banks: tuple[str, ...] = ()
  sources: Mapping[str, Mapping[str, str]] = dataclasses.field(
    default_factory=dict, hash=False
  )
  fields: tuple[str, ...] = ()

  @property
  def distils(self) -> bool:
    """Whether it needs a frozen model: its targets, logits or answers."""
    of_teacher = set(self.batch) & set(schema.FEATURES)
    return bool(self.target or self.sources or of_teacher)

  @property
  def settings(self) -> tuple[str, ...]:
    """All fields of the settings that it reads, besides its weight."""
    return (*self.sources, *self.fields)

  def batch_keys(self, settings: LossConfig) -> tuple[str, ...]:
    """Keys of the batch that it reads under these settings."""
    chosen = (keys[getattr(settings, f)] for f, keys in self.sources.items())
    return (*self.batch, *chosen)

  def of(
    self,
    outputs: Mapping[str, Array],
    batch: Mapping[str, Array],
    banks: Mapping[str, Array],
    settings: LossConfig,
  ) -> Term:
    """The term of a batch, given only what it says it reads."""
    given = Given(
      outputs=_some(outputs, self.outputs),
      batch=_some(batch, self.batch_keys(settings)),
      banks=_some(banks, self.banks),
      settings=types.SimpleNamespace(
        **{field: getattr(settings, field) for field in self.settings}
      ),
      target=outputs[self.target] if self.target else None,
    )
    return self.value(given)


def loss_term(**reads: Any) -> Callable[[Callable[[Given], Term]], LossTerm]:
  """Decorator: makes a term of a function, under the function's name.

  Args:
    **reads: attributes of `LossTerm`.
  """
  return lambda value: LossTerm(value.__name__, value, **reads)


def unread_fields(terms: Iterable[LossTerm]) -> tuple[str, ...]:
  """Fields of `LossConfig` that none of the terms reads."""
  read = {name for term in terms for name in (term.name, *term.settings)}
  fields = dataclasses.fields(LossConfig)
  return tuple(field.name for field in fields if field.name not in read)


def _some(values: Mapping[str, Array], names: Iterable[str]) -> dict:
  """Those that are there; a setting may turn off a bank."""
  return {name: values[name] for name in names if name in values}


@dataclasses.dataclass(frozen=True)
class Objective:
  """The weighted sum of a task's terms.

  Attributes:
    terms: in the order in which they are added.
    settings: their weights, by name, and their forms. A weight of 0 drops the
      term.
  """

  terms: tuple[LossTerm, ...]
  settings: LossConfig

  @property
  def used(self) -> tuple[LossTerm, ...]:
    """The terms whose weight is not 0."""
    return tuple(t for t in self.terms if getattr(self.settings, t.name))

  @property
  def teacher_terms(self) -> tuple[str, ...]:
    """Names of the terms in use that need the teacher branch."""
    return tuple(term.name for term in self.used if term.target)

  @property
  def batch_keys(self) -> frozenset[str]:
    """Keys of the batch that the terms in use read."""
    keys = (term.batch_keys(self.settings) for term in self.used)
    return frozenset(key for some in keys for key in some)

  def reads(self, *outputs: str) -> bool:
    """Whether a term in use reads one of these outputs of the model."""
    read = {name for term in self.used for name in (term.target, *term.outputs)}
    return not read.isdisjoint(outputs)

  def idle_fields(self) -> dict[str, tuple[str, ...]]:
    """Fields without effect -> the terms that read them, all of weight 0.

    Fields that no term reads are in `unread_fields`.
    """
    readers: dict[str, list[LossTerm]] = {}
    for term in self.terms:
      for field in term.settings:
        readers.setdefault(field, []).append(term)
    return {
      field: tuple(term.name for term in those)
      for field, those in readers.items()
      if not any(getattr(self.settings, term.name) for term in those)
    }

  def __call__(
    self,
    outputs: Mapping[str, Array],
    batch: Mapping[str, Array],
    banks: Mapping[str, Array],
  ) -> tuple[Float[Array, ""], Metrics]:
    """The weighted sum of all terms, and each term's mean by name.

    Args:
      outputs: of the model, with `train=True`.
      batch: of the batch contract.
      banks: text embeddings, and what is in `losses.banks`.

    Returns:
      The total, float32 [], and the means of the terms, unweighted, with the
      total among them as `total`.
    """
    every = batch[schema.EXAMPLE_MASK].astype(jnp.float32)
    means: Metrics = {}
    for term in self.used:
      if term.target and term.target not in outputs:
        continue
      value, weight = term.of(outputs, batch, banks, self.settings)
      means[term.name] = Term(value, weight * every).mean()
    weighted = (getattr(self.settings, n) * mean for n, mean in means.items())
    total = sum(weighted, jnp.zeros(()))
    return total, means | {"total": total}
