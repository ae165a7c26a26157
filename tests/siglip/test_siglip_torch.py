"""SigLIP against torch's own, live, over random configs; skips without torch.

Torch is not part of this project: see tests/goldens/siglip/make.py for an
environment that has it; jax, flax, rich and pytest are needed too.
"""

import numpy as np
import pytest

from mipd_jax.teachers import siglip
from mipd_jax.teachers.checkpoints import hf_weights, tokenizer
from tests.fixtures.blip2_fixture import assert_close
from tests.goldens.siglip import make
from tests.siglip import tiny

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

TEXTS = ("a red cat", "", "Dog" + 20 * " dog", "zebra")


def random_settings(seed: int) -> dict:
  """Sizes of a SigLIP, by seed."""
  rng = np.random.default_rng(seed)

  def tower() -> dict:
    heads = int(rng.integers(1, 5))
    return {
      "hidden_size": heads * int(rng.integers(3, 9)),
      "num_attention_heads": heads,
      "intermediate_size": int(rng.integers(8, 50)),
      "num_hidden_layers": int(rng.integers(1, 4)),
      "hidden_act": ("gelu_pytorch_tanh", "gelu", "relu")[rng.integers(3)],
      "layer_norm_eps": float(10.0 ** -rng.integers(3, 8)),
    }

  vision = tower() | {
    "patch_size": int(rng.integers(3, 8)),
    "image_size": int(rng.integers(8, 30)),
  }
  text = tower() | {
    "max_position_embeddings": int(rng.integers(4, 20)),
    "projection_size": vision["hidden_size"],
  }
  return {"vision": vision, "text": text}


def _theirs(seed: int, folder):
  """torch's model, written to a folder with a tokenizer."""
  ids = tokenizer.vocabulary(tiny.WORDS)
  config = make.make_config(random_settings(seed), len(ids))
  theirs = make.make_model(config, seed)
  theirs.save_pretrained(folder)
  length = config.text_config.max_position_embeddings
  tokenizer.save_word_level(folder, tiny.WORDS, length)
  return theirs


def _compare(ours: siglip.Siglip, theirs, seed: int) -> None:
  pixels = make.make_pixels(theirs.config, seed)
  ids, mask = ours.tokenize(TEXTS)
  padded = make.tokenized(ours.tokenizer.inner, TEXTS, ours.max_text_length)
  expected = make.run(theirs, pixels, padded)
  variables = {"params": ours.params["vision_model"]}
  patches, image = ours.vision.apply(variables, pixels.transpose(0, 2, 3, 1))
  assert_close(patches, expected["patches"], 1e-5)
  assert_close(image, expected["image"], 1e-5)
  cut = ids[:, :-1], mask[:, :-1]
  short = mask.sum(axis=1) < ids.shape[1]
  whole = ours.text_embedding(ours.params, ids, mask)
  assert_close(whole, expected["text"], 1e-5)
  part = ours.text_embedding(ours.params, *cut)
  assert_close(part[short], expected["text"][short], 1e-5)
  tokens = np.array(ours.text_tokens(ours.params, ids, mask))
  rows = np.arange(len(TEXTS)), mask.sum(axis=1) - 1
  assert_close(tokens[rows], expected["text"], 1e-5)
  tokens[rows] = expected["positions"][rows]
  assert_close(tokens, expected["positions"], 1e-5)
  assert ours.logit_scale == pytest.approx(make.SCALE, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_random_config(seed, tmp_path):
  theirs = _theirs(seed, tmp_path)
  _compare(siglip.load(tmp_path), theirs, seed)


def test_torch_reads_what_is_written_here(tmp_path):
  import torch
  from transformers import SiglipModel

  first = _theirs(10, tmp_path)
  ours = siglip.load(tmp_path)
  hf_weights.write(tmp_path / "model.safetensors", ours.params)
  second, report = SiglipModel.from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not any(report.values()), report
  for (name, one), (other, two) in zip(
    first.named_parameters(), second.named_parameters(), strict=True
  ):
    assert name == other and torch.equal(one, two), name
  _compare(ours, second.eval(), 10)


@pytest.mark.parametrize("case", tiny.CASES)
def test_stored_arrays_are_todays(case):
  from transformers import SiglipModel

  theirs = SiglipModel.from_pretrained(
    tiny.GOLDENS / case, dtype="float32"
  ).eval()
  expected = tiny.expected(case)
  found = make.run(theirs, expected["pixel_values"], expected["ids"])
  for name, value in found.items():
    assert_close(value, expected[name], 1e-5)
