"""BLIP-2 against torch's own, live, over random configs; skips without torch.

Torch is not part of this project: see tests/goldens/blip2/make.py for an
environment that has it; jax, flax, rich and pytest are needed too.
"""

import numpy as np
import pytest

from mipd_jax.teachers import blip2
from mipd_jax.teachers.blip2.decoders import t5
from tests.fixtures.blip2_fixture import INPUTS, assert_close
from tests.goldens.blip2 import make

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def _choose(rng: np.random.Generator, *values):
  return values[rng.integers(len(values))]


def random_settings(kind: str, seed: int) -> dict:
  """Sizes and switches of a BLIP-2, by seed."""
  rng = np.random.default_rng(seed)
  heads = int(rng.integers(1, 5))
  vision = {
    "hidden_size": heads * int(rng.integers(3, 9)),
    "num_attention_heads": heads,
    "intermediate_size": int(rng.integers(8, 50)),
    "num_hidden_layers": int(rng.integers(1, 4)),
    "patch_size": int(rng.integers(3, 8)),
    "image_size": int(rng.integers(8, 30)),
    "qkv_bias": bool(rng.integers(2)),
    "hidden_act": _choose(rng, "gelu", "relu", "gelu_new"),
  }
  heads = int(rng.integers(1, 4))
  qformer = {
    "hidden_size": heads * int(rng.integers(3, 9)),
    "num_attention_heads": heads,
    "intermediate_size": int(rng.integers(8, 50)),
    "num_hidden_layers": int(rng.integers(1, 5)),
    "cross_attention_frequency": int(rng.integers(1, 4)),
  }
  text = _random_t5(rng) if kind == "t5" else _random_opt(rng)
  text["tie_word_embeddings"] = bool(rng.integers(2))
  queries = int(rng.integers(1, 8))
  return {
      "vision": vision, "qformer": qformer, "text": text, "queries": queries
    }  # fmt: skip


def _random_t5(rng: np.random.Generator) -> dict:
  return make.T5 | {
    "d_model": int(rng.integers(5, 40)),
    "d_kv": int(rng.integers(2, 9)),
    "num_heads": int(rng.integers(1, 5)),
    "d_ff": int(rng.integers(8, 50)),
    "num_layers": int(rng.integers(1, 4)),
    "num_decoder_layers": int(rng.integers(1, 4)),
    "relative_attention_num_buckets": 4 * int(rng.integers(2, 9)),
    "relative_attention_max_distance": int(rng.integers(18, 130)),
    "feed_forward_proj": _choose(rng, "relu", "gated-gelu", "gated-silu"),
  }


def _random_opt(rng: np.random.Generator) -> dict:
  heads = int(rng.integers(1, 5))
  width = heads * int(rng.integers(3, 9))
  return make.OPT | {
    "hidden_size": width,
    "word_embed_proj_dim": width,
    "num_attention_heads": heads,
    "ffn_dim": int(rng.integers(8, 50)),
    "num_hidden_layers": int(rng.integers(1, 4)),
    "do_layer_norm_before": bool(rng.integers(2)),
    "max_position_embeddings": 64,
  }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["t5", "opt"])
def test_random_config(kind, seed, tmp_path):
  config = make.make_config(random_settings(kind, seed))
  theirs = make.make_model(config, seed)
  theirs.save_pretrained(tmp_path)
  inputs = make.make_inputs(config, seed, int(7 + 10 * seed), "left")
  expected = make.run(theirs, inputs)
  ours = blip2.load(tmp_path)
  _compare(ours, inputs, expected)


@pytest.mark.parametrize("kind", ["t5", "opt"])
def test_torch_reads_what_is_written_here(kind, tmp_path):
  import torch
  from transformers import Blip2ForConditionalGeneration

  config = make.make_config(random_settings(kind, 10))
  first = make.make_model(config, 10)
  first.save_pretrained(tmp_path / "first")
  ours = blip2.load(tmp_path / "first")
  blip2.write_checkpoint(tmp_path / "second", ours.config, ours.params)
  second, report = Blip2ForConditionalGeneration.from_pretrained(
    tmp_path / "second", output_loading_info=True
  )
  assert not any(report.values()), report
  for (name, one), (other, two) in zip(
    first.named_parameters(), second.named_parameters(), strict=True
  ):
    assert name == other and torch.equal(one, two), name
  inputs = make.make_inputs(config, 10, 6, "right" if kind == "t5" else "left")
  _compare(ours, inputs, make.run(second.eval(), inputs))


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("count", [4, 12, 32, 64])
@pytest.mark.parametrize("furthest", [40, 100, 128, 512])
def test_buckets_of_relative_positions(both_ways, count, furthest):
  import torch
  from transformers.models.t5.modeling_t5 import T5Attention

  relative = np.arange(-1000, 1001)
  theirs = T5Attention._relative_position_bucket(
    torch.tensor(relative),
    bidirectional=both_ways,
    num_buckets=count,
    max_distance=furthest,
  )
  ours = t5.buckets(
    relative, both_ways=both_ways, count=count, furthest=furthest
  )
  np.testing.assert_array_equal(ours, theirs.numpy())


def _compare(ours: blip2.Blip2, inputs: dict, expected: dict) -> None:
  pixels, *prompt, targets = (inputs[name] for name in INPUTS)
  for name, value in ours.encode_image(pixels).items():
    assert_close(value, expected[name])
  counts = (targets != -100)[..., None]
  logits = ours.target_logits(pixels, *prompt, targets)
  assert_close(logits * counts, expected["target_logits"] * counts)
  likelihood = ours.score(pixels, *prompt, targets)
  assert_close(likelihood, expected["target_log_likelihood"])
  answers = ours.generate(pixels, *prompt, max_new_tokens=make.NEW_TOKENS)
  np.testing.assert_array_equal(answers, expected["generated"])
