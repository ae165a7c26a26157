"""Teachers as the cache sees them: tokens, verb logits, loading by kind."""

import dataclasses

import jax
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.devices import sharding
from mipd_jax.teachers import families
from mipd_jax.teachers.image_teachers import Blip2Teacher
from tests.fakes import fakes
from tests.fixtures import blip2_fixture

QUESTION = "what is this"
VERBS = fakes.vocabulary().verbs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The gated T5 golden, with a tokenizer of a few words beside it."""
  folder = tmp_path_factory.mktemp("blip2") / "model"
  return blip2_fixture.with_words(folder, {*QUESTION.split(), *VERBS})


def load(folder, **changes):
  asked = {"question": QUESTION, "verb_score": "sum"} | changes
  return families.load_teacher(str(folder), "float32", **asked)


def see(teacher, pixels):
  return jax.jit(teacher.see)(teacher.params, pixels)


def pixels(teacher, count=2):
  side = teacher.image_size
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, side, side, 3), np.uint8)


def test_blip2_sees_tokens_and_scores_verbs_as_answers(folder):
  teacher = load(folder)
  model = teacher._model
  seen = see(teacher, pixels(teacher))
  assert seen["tokens"].shape == (2, model.num_image_tokens, model.vision_width)
  scores = teacher.scorer(VERBS, {})(teacher.params, seen)
  assert scores.shape == (2, len(VERBS))
  normal = model.normalise(pixels(teacher)).transpose(0, 3, 1, 2)
  # Three words and the end; the rest is filler.
  ids, mask = (np.repeat(x[:, :4], 2, 0) for x in model.tokenize([QUESTION]))
  end = model.config.text_config.eos_token_id
  for column, verb in enumerate(VERBS):
    (word,) = model.tokenizer.inner(verb, add_special_tokens=False).input_ids
    target = np.tile([word, end], (2, 1))
    expected = model.score(normal, ids, mask, target)
    np.testing.assert_allclose(scores[:, column], expected, rtol=1e-4)


def test_calibrated_scores_are_less_what_grey_gets(folder):
  plain, calibrated = load(folder), load(folder, verb_score="calibrated")
  mesh = sharding.make_mesh(devices=jax.devices()[:2])
  words = fakes.vocabulary()
  assert plain.verb_bank(words, mesh) == {}
  bank = calibrated.verb_bank(words, mesh)
  side = plain.image_size
  images = pixels(plain, 3)
  images[2] = 127
  seen = see(plain, images)
  raw = plain.scorer(VERBS, {})(plain.params, seen)
  scores = calibrated.scorer(VERBS, bank)(plain.params, seen)
  np.testing.assert_allclose(scores, raw - raw[2], atol=1e-4)
  assert side == calibrated.image_size
  assert plain.options != calibrated.options  # another cache


def test_mean_divides_by_tokens(folder):
  plain, mean = load(folder), load(folder, verb_score="mean")
  seen = see(plain, pixels(plain))
  raw = plain.scorer(VERBS, {})(plain.params, seen)
  scores = mean.scorer(VERBS, {})(plain.params, seen)
  np.testing.assert_allclose(scores, raw / 2, rtol=1e-5)  # a word, the end


def test_another_question_is_another_cache(folder):
  assert load(folder).options != load(folder, question="what").options


def test_unknown_kinds_and_scores_are_refused(folder, tmp_path):
  with pytest.raises(InputError, match="verb_score 'best'"):
    load(folder, verb_score="best")
  (tmp_path / "config.json").write_text('{"model_type": "llava"}')
  with pytest.raises(InputError, match="model_type 'llava'"):
    load(tmp_path)
  with pytest.raises(InputError, match="hf download no/teacher"):
    load("no/teacher")


def test_blip2_without_tokenizer_is_refused_at_once():
  model = blip2_fixture.model(blip2_fixture.BF16)
  assert dataclasses.is_dataclass(model) and model.tokenizer is None
  with pytest.raises(InputError, match="no tokenizer"):
    Blip2Teacher(model, QUESTION)
