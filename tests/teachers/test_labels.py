import pathlib

import jax
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import vocabulary
from mipd_jax.devices import sharding
from mipd_jax.teachers import labels
from tests.fakes import fakes

WORDS = fakes.vocabulary()
SHARED = pathlib.Path(__file__).parents[3] / "shared/data/swig"


@pytest.fixture(scope="module")
def mesh():
  return sharding.make_mesh(devices=jax.devices()[:2])


def test_prompts():
  verbs = labels.verb_prompts(WORDS)
  assert verbs[2] == [
    "a photo of jumping, move off the ground",
    "jumping: move off the ground",
  ]
  assert verbs[3] == ["a photo of sleeping"]
  roles = labels.role_prompts(WORDS)
  assert roles[0] == ["the agent of an activity", "agent: The entity acting"]
  nouns = labels.noun_prompts(WORDS)
  assert nouns[1] == [
    "a photo of a dog",
    "a photo of a dog, also called domestic dog",
    "dog: a furry animal",
  ]
  assert nouns[6] == ["a photo of an apple", "apple: a red fruit"]
  assert [nouns[i] for i in (0, 7, 8)] == [
    ["nothing"],
    ["something else"],
    ["padding"],
  ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no SWiG vocabulary here")
def test_no_wordnet_id_in_any_prompt_of_swig():
  words = vocabulary.load(SHARED)
  prompts = labels.noun_prompts(words)
  assert len(prompts) == 9929
  assert "a photo of a hand, also called manus or mitt" in prompts[5]
  ids = set(words.nouns[1:-2])
  for group in prompts:
    assert all(text.strip() for text in group)
    assert not ids & {w.strip(".,:") for t in group for w in t.split()}


def test_banks_have_a_unit_row_per_class(mesh):
  banks = labels.label_banks(fakes.FakeClip(), WORDS, mesh, batch_size=4)
  shapes = {name: bank.shape for name, bank in banks.items()}
  assert shapes == {
    "verb_text": (5, 6),
    "role_text": (4, 6),
    "noun_text": (9, 6),
    "role_center": (6,),
    "noun_center": (6,),
  }
  for name, bank in banks.items():
    assert bank.dtype == np.float32
    if name.endswith("_text"):
      np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1, rtol=1e-6)


def test_what_nouns_share_is_taken_off(mesh):
  clip = fakes.FakeClip()
  raw = labels.text_bank(clip, labels.noun_prompts(WORDS), mesh)
  banks = labels.label_banks(clip, WORDS, mesh)
  np.testing.assert_allclose(banks["noun_center"], raw.mean(axis=0), rtol=1e-5)
  rest = raw - raw.mean(axis=0)
  rest /= np.linalg.norm(rest, axis=1, keepdims=True)
  np.testing.assert_allclose(banks["noun_text"], rest, atol=1e-6)


def test_a_list_of_one_noun_keeps_its_direction():
  alone = np.array([[0.6, 0.8]], np.float32)
  np.testing.assert_array_equal(labels.center(alone, alone[0]), alone)


def test_a_bank_is_the_unit_mean_of_unit_embeddings(mesh):
  clip = fakes.FakeClip()
  bank = labels.label_banks(clip, WORDS, mesh)["verb_text"]
  rows = []
  for text in labels.verb_prompts(WORDS)[2]:
    row = clip.text_embedding(clip.params, *clip.tokenize([text], 77))[0]
    rows.append(row / np.linalg.norm(row))
  mean = np.mean(rows, axis=0)
  np.testing.assert_allclose(bank[2], mean / np.linalg.norm(mean), rtol=1e-5)


def test_order_and_batches_do_not_matter(mesh):
  clip = fakes.FakeClip()
  texts = [" ".join(["word"] * (i % 7 + 1)) + f" {i}" for i in range(23)]
  expected = clip.text_embedding(clip.params, *clip.tokenize(texts, 77))
  for batch_size in (3, 8, 100):
    found = labels.embed_texts(clip, texts, mesh, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_text_without_direction_is_named(mesh):
  clip = fakes.FakeClip()
  clip.params["words"] = np.zeros_like(clip.params["words"])
  with pytest.raises(InputError, match="a photo of chasing"):
    labels.label_banks(clip, WORDS, mesh)
