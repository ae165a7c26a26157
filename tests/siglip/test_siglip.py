"""SigLIP in Flax: parity with torch, filler of texts, what encoders promise."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax.devices import sharding
from mipd_jax.models import outputs
from mipd_jax.models.teaching import teacher_branch
from mipd_jax.teachers import encoding, labels, siglip
from mipd_jax.teachers.siglip import towers
from tests.fixtures.blip2_fixture import assert_close
from tests.siglip import tiny
from tests.siglip.tiny import FIRST, SECOND

# What each of the texts of tests/goldens/siglip/make.py holds.
FITS, ODD, EMPTY, LONG = 0, 3, 4, 5


def _texts(case: str) -> list[str]:
  return tiny.expected(case)["texts"].tolist()


def _pixels(case: str) -> np.ndarray:
  """Normalised, [B, H, W, 3]."""
  return tiny.expected(case)["pixel_values"].transpose(0, 2, 3, 1)


def _unit(x):
  x = np.asarray(x, np.float32)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("case", tiny.CASES)
def test_the_image_tower_is_torchs(case):
  model, expected = tiny.model(case), tiny.expected(case)
  variables = {"params": model.params["vision_model"]}
  patches, image = jax.jit(model.vision.apply)(variables, _pixels(case))
  assert_close(patches, expected["patches"], 1e-5)
  assert_close(image, expected["image"], 1e-5)


@pytest.mark.parametrize("case", tiny.CASES)
def test_the_tokenizer_is_transformers(case):
  """That of the first SigLIP is sentencepiece's own, without sentencepiece."""
  model, expected = tiny.model(case), tiny.expected(case)
  ids, mask = model.tokenize(_texts(case))
  np.testing.assert_array_equal(ids, expected["ids"])
  lengths = mask.sum(axis=1)
  assert lengths[EMPTY] == 1 and lengths[LONG] == model.max_text_length
  assert (np.diff(mask.astype(int), axis=1) <= 0).all()
  end = model.tokenizer.inner.eos_token_id
  assert (ids[np.arange(len(ids)), lengths - 1] == end).all()
  loud = model.tokenize([text.upper() for text in _texts(case)])
  np.testing.assert_array_equal(loud[0], ids)


@pytest.mark.parametrize("case", tiny.CASES)
def test_texts_are_torchs_however_they_are_cut(case):
  """torch reads every text with padding="max_length"."""
  model, expected = tiny.model(case), tiny.expected(case)
  ids, mask = model.tokenize(_texts(case))
  embed = jax.jit(model.text_embedding)
  assert_close(embed(model.params, ids, mask), expected["text"], 1e-5)
  tokens = jax.jit(model.text_tokens)
  real = mask.sum(axis=1)
  for length in (real[EMPTY], real[FITS] + 2, ids.shape[1]):
    rows = np.flatnonzero(real <= length)
    # What callers have put into filler is not read.
    cut = np.where(mask, ids, 7)[rows, :length], mask[rows, :length]
    texts, wanted = expected["text"][rows], expected["positions"][rows]
    assert_close(embed(model.params, *cut), texts, 1e-5)
    wanted[np.arange(len(rows)), real[rows] - 1] = texts
    assert_close(tokens(model.params, *cut), wanted[:, :length], 1e-5)


@pytest.mark.parametrize("case", tiny.CASES)
def test_logits_are_torchs_but_for_the_bias(case):
  model, expected = tiny.model(case), tiny.expected(case)
  assert model.logit_scale == pytest.approx(10, rel=0.01)
  logits = encoding.zero_shot_logits(
    jnp.asarray(expected["image"]), _unit(expected["text"]), model.logit_scale
  )
  bias = float(model.params["logit_bias"][0])
  assert bias == pytest.approx(-3)
  assert_close(logits + bias, expected["logits_per_image"], 1e-5)


@pytest.mark.parametrize("case", tiny.CASES)
def test_pixels_are_what_transformers_makes_of_them(case):
  from transformers import SiglipImageProcessor

  model = tiny.model(case)
  side = model.image_size
  pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3))
  pixels = pixels.astype(np.uint8)
  processor = SiglipImageProcessor.from_pretrained(tiny.GOLDENS / case)
  theirs = processor(list(pixels), do_resize=False, return_tensors="np")
  ours = np.asarray(model.normalise(pixels)).transpose(0, 3, 1, 2)
  assert_close(ours, theirs["pixel_values"], 1e-6)


def test_the_first_token_stands_for_the_whole_image():
  """A square grid follows, row by row."""
  model = tiny.model(FIRST)
  side, patch = model.image_size, model.config.vision_config.patch_size
  pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3))
  pixels = pixels.astype(np.uint8)
  tokens, image = model.image_features(model.params, pixels)
  assert tokens.shape == (3, model.num_image_tokens, model.vision_width)
  np.testing.assert_array_equal(tokens[:, 0], image)
  np.testing.assert_array_equal(
    model.image_embedding(model.params, pixels), image
  )
  variables = {"params": model.params["vision_model"]}
  patches, _ = model.vision.apply(variables, model.normalise(pixels))
  assert_close(tokens[:, 1:], patches, 1e-6)
  # Without the layers, a pixel of the second row's third patch moves that one.
  config = copy.deepcopy(model.config)
  config.vision_config.num_hidden_layers = 0
  shallow = dataclasses.replace(
    model, vision=towers.VisionTower(config.vision_config)
  )
  changed = pixels.copy()
  changed[:, patch + 1, 2 * patch + 3] ^= 255
  before, after = (
    shallow.image_tokens(model.params, x) for x in (pixels, changed)
  )
  moved = np.abs(before - after).max(axis=(0, 2)) > 0
  second_row, third = side // patch, 2
  assert np.flatnonzero(moved).tolist() == [0, 1 + second_row + third]


def test_an_export_needs_the_image_tower_alone():
  model = tiny.model(SECOND)
  pixels = np.full((1, model.image_size, model.image_size, 3), 90, np.uint8)
  assert set(model.image_params) == {"vision_model"}
  np.testing.assert_array_equal(
    model.image_tokens(model.image_params, pixels),
    model.image_tokens(model.params, pixels),
  )


@pytest.mark.parametrize("case", tiny.CASES)
def test_frozen_sentences_are_the_texts_embeddings(case):
  """The teacher's branch takes the row of the end token for a sentence."""
  model, expected = tiny.model(case), tiny.expected(case)
  told = [FITS, ODD, EMPTY, LONG]
  ids, mask = model.tokenize([_texts(case)[row] for row in told])
  view = jax.jit(encoding.rationale_view(model, "float32"))
  features = view(model.params, {"ids": ids[None], "mask": mask[None]})
  batch = features | {schema.EXAMPLE_MASK: np.ones(1, bool)}
  found = teacher_branch._frozen_sentences(batch)
  glimpse = _unit(expected["text"][told[:2]])
  glimpse -= glimpse.mean(axis=0)
  assert_close(found[outputs.SCENE_POSITIVE][0], glimpse[0], 1e-4)
  assert_close(found[outputs.SCENE_NEGATIVE][0], glimpse[1], 1e-4)


@pytest.mark.parametrize("case", tiny.CASES)
def test_banks_and_sentences_are_the_texts_embeddings(case):
  """Both cut texts to other lengths than the tower reads."""
  model, expected = tiny.model(case), tiny.expected(case)
  texts = _texts(case)
  rows = labels.embed_texts(
    model, texts, sharding.make_mesh(devices=jax.devices()[:1]), batch_size=2
  )
  assert_close(rows, expected["text"], 1e-5)
  told = encoding.tokenized_sentences(model, [[(texts[FITS], texts[ODD])]])
  assert told["ids"].shape[-1] == model.max_text_length
  view = jax.jit(encoding.sentence_view(model, "float32"))
  found = view(model.params, told)[schema.INSTANCE_TEXT]
  assert_close(found[0, 0], _unit(expected["text"][[FITS, ODD]]), 1e-5)


def test_shapes_and_attributes():
  model = tiny.model(FIRST)
  assert (model.image_size, model.num_image_tokens) == (24, 10)
  assert (model.vision_width, model.text_width) == (24, 24)
  assert model.max_text_length == 24
  assert len(model.revision) == 64
  assert model.tokenize(["a"], 99)[0].shape == (1, 24)
  assert model.tokenize([], 6)[0].shape == (0, 6)
  # Pixels that no whole patch covers are not read.
  assert tiny.model(SECOND).num_image_tokens == (30 // 8) ** 2 + 1


def test_dtype():
  half = siglip.load(tiny.GOLDENS / SECOND, jnp.bfloat16)
  leaves = jax.tree.leaves(half.params)
  assert all(leaf.dtype == jnp.bfloat16 for leaf in leaves)
  expected = tiny.expected(SECOND)
  ids, mask = half.tokenize(_texts(SECOND))
  found = jax.jit(half.text_tokens)(half.params, ids, mask)
  assert found.dtype == jnp.bfloat16
  assert_close(
    found[EMPTY, 0].astype(jnp.float32), expected["text"][EMPTY], 0.05
  )


@pytest.mark.parametrize(
  ("text", "count"),
  # As torch counts those of google/siglip-base-patch16-224 and siglip2-...
  [({}, 203_155_970), ({"vocab_size": 256_000}, 375_187_970)],
)
def test_parameters_of_the_published_sizes(text, count):
  from transformers import SiglipConfig

  _, _, template = siglip.build(SiglipConfig(text_config=text))
  sizes = [leaf.size for leaf in jax.tree.leaves(template)]
  assert sum(sizes) == count
