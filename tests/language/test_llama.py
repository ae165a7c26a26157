"""Our own Llama against loops in numpy, and against transformers' Flax one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.checkpoints import hf_weights
from mipd_jax.teachers.language import decoding, llama
from mipd_jax.teachers.language import weights as weights_lib

LLAMA3 = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 64,
}
LINEAR = {"type": "linear", "factor": 4.0}
BASE = {
  "vocab_size": 19,
  "hidden_size": 16,
  "intermediate_size": 24,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "max_position_embeddings": 64,
  "rms_norm_eps": 1e-5,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "hidden_act": "silu",
  "tie_word_embeddings": False,
}
# What config.json says -> base, scaling of the frequencies.
CASES = {
  "smollm2": {
    "model_type": "llama",
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "rope_interleaved": False,
    "is_llama_config": True,
  },
  "llama3": {
    "model_type": "llama",
    "rope_theta": 500000.0,
    "rope_scaling": LLAMA3,
  },
  "transformers5": {
    "model_type": "llama",
    "rope_parameters": {"rope_theta": 500000.0, **LLAMA3},
    "dtype": "float32",
    "head_dim": 8,
  },
  "linear, biases": {
    "model_type": "llama",
    "rope_scaling": LINEAR,
    "attention_bias": True,
    "mlp_bias": True,
  },
  "qwen2": {
    "model_type": "qwen2",
    "rope_theta": 1000000.0,
    "use_sliding_window": True,
    "sliding_window": 3,
    "max_window_layers": 1,
  },
  "mistral": {
    "model_type": "mistral",
    "rope_theta": 1000000.0,
    "sliding_window": 4,
  },
  # Its positions are plain, but Flax's windows have one token more.
  "mistral, plain positions": {
    "model_type": "mistral",
    "sliding_window": 4,
    "attention_bias": False,
    "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.0},
    "partial_rotary_factor": 1.0,
  },
}
IDS = np.array([[1, 5, 6, 7, 3, 9, 11, 4], [1, 8, 8, 2, 14, 3, 17, 6]])


def write(folder, case: str):
  content = BASE | CASES[case]
  (folder / "config.json").write_text(json.dumps(content))
  network = weights_lib.build(folder)
  rng = np.random.default_rng(3)
  tree = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.4,
    dict(network.params_shape_tree),
  )
  if content["tie_word_embeddings"]:
    del tree["lm_head"]
  hf_weights.write(folder / "model.safetensors", tree)
  params, _ = weights_lib.read(folder, network)
  return content, network, params


def frequencies(content: dict, width: int) -> list[float]:
  """As the papers' formulas have them, one by one."""
  scaling = content.get("rope_parameters") or content.get("rope_scaling") or {}
  base = scaling.get("rope_theta", content.get("rope_theta", 10000.0))
  found = []
  for pair in range(width // 2):
    plain = base ** (-2 * pair / width)
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "linear":
      plain /= scaling["factor"]
    if kind == "llama3":
      length = scaling["original_max_position_embeddings"]
      low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
      wave = 2 * np.pi / plain
      if wave > length / low:
        plain /= scaling["factor"]
      elif wave >= length / high:
        share = (length / wave - low) / (high - low)
        plain = (1 - share) * plain / scaling["factor"] + share * plain
    found.append(plain)
  return found


def logits(content: dict, tensors: dict, ids: np.ndarray) -> np.ndarray:
  """Of one row, token by token and head by head: float64 [T, V]."""
  heads, shared = 4, 2
  width = content.get("head_dim", content["hidden_size"] // heads)
  turn = frequencies(content, width)
  tensors = {name: x.astype(np.float64) for name, x in tensors.items()}

  def dense(name, x):
    return x @ tensors[f"{name}.weight"].T + tensors.get(f"{name}.bias", 0.0)

  def norm(name, x):
    size = np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
    return x / size * tensors[f"{name}.weight"]

  def turned(x, place):
    out = x.copy()
    for pair, speed in enumerate(turn):
      other = pair + width // 2
      cos, sin = np.cos(place * speed), np.sin(place * speed)
      out[pair] = x[pair] * cos - x[other] * sin
      out[other] = x[other] * cos + x[pair] * sin
    return out

  x = tensors["model.embed_tokens.weight"][ids]
  for layer in range(content["num_hidden_layers"]):
    name = f"model.layers.{layer}"
    window = content.get("sliding_window") or len(ids)
    if content["model_type"] == "qwen2" and layer < 1:
      window = len(ids)
    source = norm(f"{name}.input_layernorm", x)
    query, key, value = (
      dense(f"{name}.self_attn.{n}_proj", source).reshape(len(ids), -1, width)
      for n in "qkv"
    )
    out = np.zeros((len(ids), heads, width))
    for head in range(heads):
      group = head // (heads // shared)
      for at in range(len(ids)):
        seen = range(max(0, at - window + 1), at + 1)
        scores = np.array(
          [turned(query[at, head], at) @ turned(key[s, group], s) for s in seen]
        ) / np.sqrt(width)
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        out[at, head] = sum(
          w * value[s, group] for w, s in zip(weights, seen, strict=True)
        )
    x = x + dense(f"{name}.self_attn.o_proj", out.reshape(len(ids), -1))
    source = norm(f"{name}.post_attention_layernorm", x)
    gate = dense(f"{name}.mlp.gate_proj", source)
    gate = gate / (1 + np.exp(-gate))
    inner = gate * dense(f"{name}.mlp.up_proj", source)
    x = x + dense(f"{name}.mlp.down_proj", inner)
  return norm("model.norm", x) @ tensors["lm_head.weight"].T


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_formulas(tmp_path, case):
  """Read at once, and token by token behind padding at the left."""
  content, network, params = write(tmp_path, case)
  assert isinstance(network, llama.Llama)
  if case == "qwen2":
    assert "bias" in params["model"]["layers"]["0"]["self_attn"]["q_proj"]
  tensors = hf_weights.to_torch(params)
  wanted = np.stack([logits(content, tensors, row) for row in IDS])
  found = np.asarray(jax.jit(lambda p: network(IDS, params=p).logits)(params))
  np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)

  padded = np.concatenate([np.zeros((2, 3), int), IDS[:, :5]], axis=1)
  mask = jnp.asarray(padded > 0, jnp.int32)

  @jax.jit
  def told(params):
    out, inputs = decoding.start(
      network, params, jnp.asarray(padded), mask, (), 3
    )
    outs = [out]
    for place in (5, 6):
      out, inputs = decoding._advance(
        network, params, jnp.asarray(IDS[:, place : place + 1]), inputs
      )
      outs.append(out)
    return jnp.stack(outs, axis=1)

  np.testing.assert_allclose(told(params), wanted[:, 4:7], atol=1e-4, rtol=1e-4)


def test_plain_positions_are_those_of_transformers(tmp_path):
  """Both classes on one tree; the folder itself gets transformers' class."""
  content = BASE | {"model_type": "llama"}
  (tmp_path / "config.json").write_text(json.dumps(content))
  theirs = weights_lib.build(tmp_path)
  assert not isinstance(theirs, llama.Llama)
  ours = llama.Llama(theirs.config, llama.Rope())
  shapes = jax.tree.map(lambda leaf: leaf.shape, dict(theirs.params_shape_tree))
  assert shapes == jax.tree.map(lambda leaf: leaf.shape, ours.params_shape_tree)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.4, jnp.float32),
    ours.params_shape_tree,
  )
  np.testing.assert_allclose(
    ours(IDS, params=params).logits,
    theirs(IDS, params=params).logits,
    atol=1e-4,
    rtol=1e-4,
  )


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
    ({"rope_scaling": {"rope_type": ["linear"]}}, "is not known here"),
    ({"rope_scaling": "linear"}, "no object"),
    (
      {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
      r"\['full_attention'\] without a rope_type",
    ),
    (
      {"model_type": "qwen2", "layer_types": ["chunked_attention"] * 2},
      "layer_types is .* expected full_attention for each of 2 layers",
    ),
    (
      {"model_type": "qwen2", "layer_types": ["sliding_attention"] * 2},
      "layer_types is .* expected full_attention for each of 2 layers",
    ),
    ({"rope_scaling": {"type": "linear"}}, "expected \\['factor'\\]"),
    ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor should be"),
    ({"rope_scaling": {**LINEAR, "rope_type": "default"}}, "not known here"),
    ({"rope_scaling": {**LLAMA3, "mrope_section": [1]}}, "mrope_section"),
    ({"rope_scaling": {**LLAMA3, "low_freq_factor": 9}}, "high_freq_factor"),
    ({"rope_scaling": LINEAR, "rope_parameters": LLAMA3}, "differ"),
    (
      {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e6}},
      "two values of rope_theta",
    ),
    ({"rope_theta": "500000"}, "rope_theta is '500000'"),
    ({"rope_theta": 0}, "rope_theta is 0"),
    ({"rope_theta": 5e5, "partial_rotary_factor": 0.5}, "partial_rotary"),
    ({"rope_theta": 5e5, "num_key_value_heads": 3}, "a divisor of"),
    ({"rope_theta": 5e5, "num_attention_heads": 0}, "num_attention_heads is 0"),
    ({"rope_theta": 5e5, "head_dim": 3}, "3 wide"),
    ({"rope_theta": 5e5, "hidden_act": "nosuch"}, "hidden_act is 'nosuch'"),
    ({"rope_theta": 5e5, "logit_scale": 0.5}, "logit_scale=0.5: not known"),
    ({"rope_theta": 5e5, "rope_interleaved": True}, "rope_interleaved=True"),
    ({"rope_theta": 5e5, "num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
  ],
)
def test_what_makes_no_positions_is_refused(tmp_path, changes, told):
  content = BASE | {"model_type": "llama"} | changes
  (tmp_path / "config.json").write_text(json.dumps(content))
  with pytest.raises(InputError, match=told) as caught:
    weights_lib.build(tmp_path)
  assert "config.json" in str(caught.value)
