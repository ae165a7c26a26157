"""BLIP-2 at its true size: parameter counts from the published shapes.

Nothing is allocated. The counts are derived here by formula, layer by layer,
and agree with the totals stated for the published models.
"""

import math

import jax
import jax.numpy as jnp
import pytest

from mipd_jax.devices import sharding
from mipd_jax.teachers import blip2
from mipd_jax.teachers.blip2 import sharding_rules

VISION = {
  "hidden_size": 1408,
  "intermediate_size": 6144,
  "num_hidden_layers": 39,
  "num_attention_heads": 16,
  "image_size": 224,
  "patch_size": 14,
}
QFORMER = {
  "hidden_size": 768,
  "intermediate_size": 3072,
  "num_hidden_layers": 12,
  "num_attention_heads": 12,
  "cross_attention_frequency": 2,
}
T5_XL = {
  "model_type": "t5",
  "vocab_size": 32128,
  "d_model": 2048,
  "d_kv": 64,
  "num_heads": 32,
  "d_ff": 5120,
  "num_layers": 24,
  "num_decoder_layers": 24,
  "feed_forward_proj": "gated-gelu",
  "tie_word_embeddings": False,
}
OPT_27B = {
  "model_type": "opt",
  "vocab_size": 50272,
  "hidden_size": 2560,
  "word_embed_proj_dim": 2560,
  "num_attention_heads": 32,
  "ffn_dim": 10240,
  "num_hidden_layers": 32,
  "max_position_embeddings": 2048,
}


def dense(into: int, out: int) -> int:
  return into * out + out


def vision_count() -> int:
  width, inner, tokens = 1408, 6144, 16 * 16 + 1
  norm = 2 * width
  attention = dense(width, 3 * width) + dense(width, width)
  mlp = dense(width, inner) + dense(inner, width)
  embeddings = dense(3 * 14 * 14, width) + width + tokens * width
  return embeddings + 39 * (attention + mlp + 2 * norm) + norm


def qformer_count() -> int:
  width, inner, image = 768, 3072, 1408
  norm = 2 * width
  own = 4 * dense(width, width) + norm
  cross = 2 * dense(width, width) + 2 * dense(image, width) + norm
  mlp = dense(width, inner) + dense(inner, width) + norm
  return norm + 12 * (own + mlp) + 6 * cross


def t5_count() -> int:
  width, inner, words, heads, depth = 2048, 5120, 32128, 32, 24
  attention, mlp = 4 * width * heads * 64, 3 * width * inner
  encoder = depth * (attention + mlp + 2 * width) + width
  decoder = depth * (2 * attention + mlp + 3 * width) + width
  positions = 2 * 32 * heads
  return 2 * words * width + encoder + decoder + positions


def opt_count() -> int:
  width, inner, words = 2560, 10240, 50272
  layer = 4 * dense(width, width) + dense(width, inner) + dense(inner, width)
  layer += 2 * 2 * width
  return (words + 2048 + 2) * width + 32 * layer + 2 * width


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def template(text: dict) -> tuple:
  from transformers import Blip2Config

  config = Blip2Config(
    vision_config=VISION, qformer_config=QFORMER, text_config=text
  )
  return config, blip2.build(config, jnp.bfloat16)[1]


def test_flan_t5_xl():
  config, shapes = template(T5_XL)
  assert count(shapes["vision_model"]) == vision_count()
  assert count(shapes["qformer"]) == qformer_count()
  assert count(shapes["language_model"]) == t5_count()
  assert shapes["query_tokens"].shape == (1, 32, 768)
  whole = vision_count() + qformer_count() + t5_count()
  assert count(shapes) == whole + 32 * 768 + dense(768, 2048)
  # As told: ViT-g 0.986 billion, Q-Former 0.105, Flan-T5-XL 2.85.
  assert round(vision_count() / 1e6) == 986
  assert round(qformer_count() / 1e6) == 105
  assert t5_count() == 2_849_757_184
  assert round(whole / 1e9, 2) == 3.94
  _fits_a_part_of_the_memory(config, shapes)


def _fits_a_part_of_the_memory(config, shapes) -> None:
  """On 4 devices along "model", T5 takes a quarter, the norms aside."""
  mesh = sharding.make_mesh(1, 4, jax.devices()[:4])
  laid = sharding_rules.shardings(config, shapes, mesh)
  name = "language_model"
  local = jax.tree.map(
    lambda leaf, where: where.shard_shape(leaf.shape), shapes, laid
  )
  sizes = jax.tree.map(
    math.prod,
    local[name],
    is_leaf=lambda leaf: isinstance(leaf, tuple),
  )
  assert sum(jax.tree.leaves(sizes)) < 0.2501 * t5_count()


@pytest.mark.slow
def test_opt_27b():
  _, shapes = template(OPT_27B)
  assert count(shapes["language_model"]) == opt_count() == 2_651_596_800
