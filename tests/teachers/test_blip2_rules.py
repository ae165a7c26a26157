"""BLIP-2's parameters on a mesh: the table, and results as on one device."""

import jax
import numpy as np
import pytest

from mipd_jax.devices import sharding
from mipd_jax.teachers import blip2
from mipd_jax.teachers.blip2 import sharding_rules
from tests.fixtures import blip2_fixture as fixture
from tests.fixtures.blip2_fixture import BF16, OPT, T5, assert_close

pytestmark = pytest.mark.skipif(
  jax.device_count() < 8, reason="needs 8 devices, see conftest.py"
)
WHOLE, COLUMNS, ROWS = (None, None), (None, "model"), ("model", None)
T5_LAYER = "language_model/decoder/block/1/layer/"
OPT_LAYER = "language_model/model/decoder/layers/0/"
VISION_LAYER = "vision_model/encoder/layers/0/"
QUERY_LAYER = "qformer/encoder/layer/0/"


def _leaf(tree, path: str):
  for part in path.split("/"):
    tree = tree[part]
  return tree


# (case, path, on a mesh with 2 or with 3 along "model", spec)
@pytest.mark.parametrize(
  ("case", "path", "model", "spec"),
  [
    (T5, T5_LAYER + "0/SelfAttention/q/kernel", 2, COLUMNS),
    # 24 columns, but four heads.
    (T5, T5_LAYER + "0/SelfAttention/q/kernel", 3, WHOLE),
    (T5, T5_LAYER + "0/SelfAttention/o/kernel", 2, ROWS),
    (T5, T5_LAYER + "1/EncDecAttention/k/kernel", 2, COLUMNS),
    (T5, T5_LAYER + "1/EncDecAttention/v/kernel", 2, COLUMNS),
    (T5, T5_LAYER + "1/EncDecAttention/o/kernel", 2, ROWS),
    (T5, T5_LAYER + "2/DenseReluDense/wi/kernel", 2, COLUMNS),
    (T5, T5_LAYER + "2/DenseReluDense/wo/kernel", 2, ROWS),
    (T5, T5_LAYER + "2/layer_norm/weight", 2, (None,)),
    (T5, "language_model/shared/embedding", 2, ROWS),
    (T5, "language_model/shared/embedding", 3, WHOLE),  # 40 words
    (BF16, "language_model/lm_head/kernel", 2, COLUMNS),
    (BF16, "language_model/encoder/block/0/layer/1/DenseReluDense/wi_1/kernel",
     2, COLUMNS),
    (OPT, OPT_LAYER + "self_attn/k_proj/kernel", 2, COLUMNS),
    (OPT, OPT_LAYER + "self_attn/k_proj/bias", 2, ("model",)),
    (OPT, OPT_LAYER + "self_attn/out_proj/kernel", 2, ROWS),
    (OPT, OPT_LAYER + "self_attn/out_proj/bias", 2, (None,)),
    (OPT, OPT_LAYER + "fc1/kernel", 2, COLUMNS),
    (OPT, OPT_LAYER + "fc1/bias", 2, ("model",)),
    (OPT, OPT_LAYER + "fc2/kernel", 2, ROWS),
    (OPT, OPT_LAYER + "fc2/bias", 2, (None,)),
    (OPT, "language_model/model/decoder/embed_tokens/embedding", 2, ROWS),
    (OPT, "language_model/model/decoder/embed_positions/embedding", 2, WHOLE),
    (T5, VISION_LAYER + "self_attn/qkv/kernel", 2, WHOLE),
    (T5, VISION_LAYER + "mlp/fc1/kernel", 2, COLUMNS),
    (T5, VISION_LAYER + "mlp/fc2/kernel", 2, ROWS),
    (T5, "vision_model/embeddings/patch_embedding/kernel", 2, (None,) * 4),
    (T5, QUERY_LAYER + "attention/attention/query/kernel", 2, COLUMNS),
    (T5, QUERY_LAYER + "attention/attention/query/bias", 2, ("model",)),
    (T5, QUERY_LAYER + "attention/attention/query/kernel", 3, WHOLE),
    (T5, QUERY_LAYER + "crossattention/attention/value/kernel", 2, COLUMNS),
    (T5, QUERY_LAYER + "crossattention/output/dense/kernel", 2, ROWS),
    (T5, QUERY_LAYER + "intermediate_query/dense/kernel", 2, COLUMNS),
    (T5, QUERY_LAYER + "output_query/dense/kernel", 2, ROWS),
    (T5, "query_tokens", 2, (None,) * 3),
    (T5, "language_projection/kernel", 2, WHOLE),
  ],
)  # fmt: skip
def test_specs_are_those_of_the_table(case, path, model, spec):
  mesh = sharding.make_mesh(2, model, jax.devices()[: 2 * model])
  loaded = fixture.model(case)
  tree = sharding_rules.shardings(loaded.config, loaded.params, mesh)
  assert tuple(_leaf(tree, path).spec) == spec


def test_every_rule_is_used():
  used = set()
  for case in (T5, BF16, OPT):
    model = fixture.model(case)
    for path, _ in jax.tree_util.tree_leaves_with_path(model.params):
      keys = tuple(key.key for key in path)
      found = [
        rule for rule in sharding_rules.RULES if sharding_rules.fits(rule, keys)
      ]
      used.update(pattern for pattern, _ in found[:1])
  assert used == {pattern for pattern, _ in sharding_rules.RULES}


@pytest.mark.parametrize(
  "case", [T5, pytest.param(OPT, marks=pytest.mark.slow)]
)
def test_sharded_results_are_those_of_one_device(case):
  mesh = sharding.make_mesh(4, 2, jax.devices()[:8])
  alone = fixture.model(case)
  spread = blip2.load(fixture.folder(case), mesh=mesh)
  assert spread.revision == alone.revision
  split = [
    leaf
    for leaf in jax.tree.leaves(spread.params)
    if leaf.addressable_shards[0].data.shape != leaf.shape
  ]
  assert len(split) > 15
  side = alone.image_size
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (8, side, side, 3)).astype(np.uint8)
  _, ids, mask, _ = fixture.inputs(case)
  tree = blip2.CandidateTree.build([[5, 6, 1], [5, 7, 8, 1], [9, 1]])

  def scores(model):
    def run(params, pixels):
      tokens = model.image_features(params, pixels)
      answers = model.candidate_scores(
        params, tokens["language_tokens"], ids[0], mask[0], tree
      )
      return tokens, answers

    return run

  there = jax.device_put(pixels, sharding.batch_sharding(mesh))
  theirs = jax.jit(scores(alone))(alone.params, pixels)
  ours = jax.jit(scores(spread))(spread.params, there)
  jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), ours, theirs)
  assert ours[1].sharding.is_equivalent_to(
    sharding.batch_sharding(mesh), ours[1].ndim
  )
