"""A term is one object, and what has to know of it follows from it."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from configs import hico_det, ov_swig
from input_pipeline import schema
from mipd_jax import config as config_lib
from mipd_jax import presets
from mipd_jax.losses import situations
from mipd_jax.losses.banks import VERB_TRAINED
from mipd_jax.losses.config import LossConfig
from mipd_jax.losses.objective import (
  LossTerm,
  Objective,
  loss_term,
  unread_fields,
)
from mipd_jax.losses.terms import Term, of_every
from mipd_jax.models import outputs as out
from mipd_jax.stages.train import train_parts
from mipd_jax.tasks import config as task_config
from tests.fixtures import batches, models

EVERY = [(t, x) for t, terms in task_config.TERMS.items() for x in terms]


@dataclasses.dataclass(frozen=True)
class Novel(LossConfig):
  """A weight for a new term."""

  brightness: float = 2.0


@loss_term(
  target=out.SCENE_TARGET, batch=(schema.CLIP_LOGITS,), fields=("box",)
)
def brightness(given) -> Term:
  return of_every(given.batch[schema.CLIP_LOGITS][:, 0] * given.settings.box)


def _data():
  outputs = {out.SCENE_TARGET: jnp.ones((6, 3))}
  return outputs, batches.batch(), batches.banks()


def test_a_new_term_is_one_object():
  """Sum, name, teacher, keys of the batch and idle fields follow from it."""
  objective = Objective((brightness,), Novel())
  outputs, batch, banks = _data()
  batch[schema.EXAMPLE_MASK] = np.array([1, 1, 0, 1, 1, 1], bool)
  total, means = objective(outputs, batch, banks)
  kept = batch[schema.CLIP_LOGITS][batch[schema.EXAMPLE_MASK], 0]
  np.testing.assert_allclose(means["brightness"], 5 * kept.mean(), rtol=1e-5)
  np.testing.assert_allclose(total, 2 * means["brightness"], rtol=1e-6)
  assert set(means) == {"brightness", "total"}
  assert objective.teacher_terms == ("brightness",)
  assert objective.batch_keys == {schema.CLIP_LOGITS}
  assert objective.reads(out.SCENE_TARGET, out.BOX)
  assert not objective.idle_fields()
  off = Objective((brightness,), Novel(brightness=0.0))
  assert off.idle_fields() == {"box": ("brightness",)}
  assert not off.used and not off.batch_keys and not off.reads(out.BOX)
  assert off(outputs, batch, banks)[0] == 0


def test_no_target_no_term():
  _, batch, banks = _data()
  _, means = Objective((brightness,), Novel())({}, batch, banks)
  assert set(means) == {"total"}


@pytest.mark.parametrize(
  ("told", "read", "error"),
  [
    ({}, lambda x: x.outputs[out.BOX], KeyError),
    ({}, lambda x: x.batch[schema.VERB], KeyError),
    ({}, lambda x: x.banks[VERB_TRAINED], KeyError),
    ({}, lambda x: x.settings.box, AttributeError),
    ({"outputs": (out.BOX,)}, lambda x: x.outputs[out.BOX], None),
    ({"batch": (schema.VERB,)}, lambda x: x.batch[schema.VERB], None),
    ({"banks": (VERB_TRAINED,)}, lambda x: x.banks[VERB_TRAINED], None),
    ({"fields": ("box",)}, lambda x: x.settings.box, None),
  ],
)
def test_a_term_gets_what_it_names_and_nothing_else(told, read, error):
  def value(given):
    read(given)
    return of_every(jnp.zeros(6))

  data = {out.BOX: jnp.ones(6)}, batches.batch(), batches.banks()
  term = LossTerm("giou", value, **told)
  if error is None:
    assert term.of(*data, LossConfig()).value.shape == (6,)
    return
  with pytest.raises(error):
    term.of(*data, LossConfig())


@pytest.mark.parametrize(("task", "term"), EVERY)
def test_a_terms_names_exist(task, term):
  """A name with a slip would be a key that is never there."""
  config = hico_det if task == "interactions" else ov_swig
  settings = config_lib.unpack(config.get_config("")).objective.settings
  for name in (term.name, *term.settings):
    assert hasattr(settings, name)
  outputs = {x for name, x in vars(out).items() if name.isupper()}
  assert {term.target, *term.outputs} - {""} <= outputs
  pairs = {**schema.CONTRACT, **schema.PAIR_ANNOTATIONS}
  assert set(term.batch_keys(settings)) <= set(pairs)


def test_no_distillation_has_no_term_that_a_frozen_model_is_needed_for():
  _, losses = presets.preset_defaults("no_distillation")
  for task, terms in task_config.TERMS.items():
    for term in terms:
      frozen = bool(term.target) or "kl" in term.name
      weight = getattr(losses, term.name, 1.0)  # of `pair`
      assert bool(weight) <= (not frozen), (task, term.name)
  _, kept = presets.preset_defaults("mipd")
  student = [t.name for t in situations.TERMS if not t.distils]
  assert [getattr(kept, n) for n in student] == [
    getattr(losses, n) for n in student
  ]


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_the_cache_is_read_for_what_is_used(preset):
  model, losses = presets.preset_defaults(preset)

  def parts(**changes):
    objective = models.objective(dataclasses.replace(losses, **changes))
    return train_parts(types.SimpleNamespace(model=model, objective=objective))

  teacher = ("teacher", "text") if model.teacher_branch else ()
  assert parts(verb_kl=0.0) == ("student", *teacher)
  for source, part in (("teacher", "verb_logits"), ("clip", "clip_logits")):
    found = parts(verb_kl=1.0, verb_kl_source=source)
    assert found == ("student", *teacher, part)


def test_shared_terms_are_one_object():
  first, second = (
    {term.name: term for term in task_config.TERMS[task]}
    for task in ("situations", "interactions")
  )
  assert first["scene_contrast"] is second["scene_contrast"]
  assert len(first) == len(task_config.TERMS["situations"])
  assert len(second) == len(task_config.TERMS["interactions"])


def test_fields_that_no_term_of_a_task_reads():
  assert unread_fields(task_config.TERMS["situations"]) == ()
  unread = unread_fields(task_config.TERMS["interactions"])
  assert "scene_distill_form" in unread and "scene_distill" not in unread
