"""The Llama family in JAX: Llama 1 to 3, SmolLM2, Qwen2 and 2.5, Mistral.

Touvron et al. 2023 (arXiv 2302.13971); rotary positions: Su et al. 2021
(arXiv 2104.09864). transformers' Flax Llama has only rotary positions of base
10000; this one supports `rope_theta`, `rope_scaling` (linear, llama3), heads
of any width, biases, and windows of attention. It has the part of a
FlaxPreTrainedModel's interface that `decoding` and `weights` use, and
PyTorch's names of parameters.

Letters: B rows, T tokens, S tokens in the cache, H heads, G heads of keys and
values, d width of a head, D of the model, V words.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.checkpoints import hf_config

Params = Mapping[str, Any]
ROPE_TYPES = ("default", "linear", "llama3")
_ROPE_FIELDS = {
  "default": (),
  "linear": ("factor",),
  "llama3": (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
  ),
}
_REMEDY = (
  "choose a model whose rope type is one of " + ", ".join(ROPE_TYPES) + ", or "
  "Flan-T5"
)


@dataclasses.dataclass(frozen=True)
class Rope:
  """Rotary positions: the frequency of each pair of a head's values.

  Attributes:
    base: of the geometric series of wavelengths.
    kind: of `ROPE_TYPES`.
    values: parameters of the kind, name -> number.
  """

  base: float = 10000.0
  kind: str = "default"
  values: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @property
  def is_plain(self) -> bool:
    return self.base == 10000.0 and self.kind == "default"

  def frequencies(self, width: int) -> np.ndarray:
    """Radians per position, float32 [width / 2].

    llama3 (Meta's llama-models, `apply_scaling`): low frequencies are divided
    by `factor`, high ones kept, and those between blended.
    """
    powers = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    plain = 1 / np.float32(self.base) ** powers
    if self.kind == "linear":
      return (plain / np.float32(self.values["factor"])).astype(np.float32)
    if self.kind == "default":
      return plain.astype(np.float32)
    factor, low, high, length = (
      self.values[name] for name in _ROPE_FIELDS["llama3"]
    )
    turns = length * plain.astype(np.float64) / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return (plain * ((1 - kept) / factor + kept)).astype(np.float32)


def read_rope(content: Mapping[str, Any], source: str) -> Rope:
  """Rotary positions from a config.json of any version of transformers.

  Up to version 4 `rope_theta` and `rope_scaling`, from 5 on
  `rope_parameters`.

  Raises:
    InputError: an unknown type or field, an invalid number, or two places that
      differ.
  """
  base: dict[str, Any] = {}
  if content.get("rope_theta") is not None:
    base["rope_theta"] = content["rope_theta"]
  kinds = []
  for name in ("rope_scaling", "rope_parameters"):
    part = content.get(name)
    if part is None:
      continue
    if not isinstance(part, dict):
      raise InputError(f"{source}: {name} is no object", _REMEDY)
    part = {key: x for key, x in part.items() if x is not None}
    theta = part.pop("rope_theta", None)
    if theta is not None and base.setdefault("rope_theta", theta) != theta:
      raise InputError(f"{source}: names two values of rope_theta", _REMEDY)
    kinds.append(_read_kind(part, f"{source}: {name}"))
  if any(one != kinds[0] for one in kinds):
    raise InputError(
      f"{source}: rope_scaling and rope_parameters differ", _REMEDY
    )
  kind, values = kinds[0] if kinds else ("default", {})
  factor = content.get("partial_rotary_factor")
  theta = base.get("rope_theta", 10000.0)
  if not hf_config.POSITIVE.fits(theta) or theta <= 1:
    raise InputError(
      f"{source}: rope_theta is {theta!r:.80}, expected a number above 1",
      _REMEDY,
    )
  if factor not in (None, 1):
    raise InputError(
      f"{source}: partial_rotary_factor is {factor!r:.80}, expected 1", _REMEDY
    )
  return Rope(float(theta), kind, values)


def _read_kind(
  part: Mapping[str, Any], source: str
) -> tuple[str, dict[str, float]]:
  part = dict(part)
  kinds = [part.pop(name, None) for name in ("rope_type", "type")]
  kinds = [kind for kind in kinds if kind is not None]
  if not kinds and set(part) - {"partial_rotary_factor"}:
    raise InputError(f"{source}: {sorted(part)} without a rope_type", _REMEDY)
  kind = kinds[0] if kinds else "default"
  if any(one != kind for one in kinds) or kind not in ROPE_TYPES:
    raise InputError(
      f"{source}: the rope type {kind!r:.80} is not known here", _REMEDY
    )
  if part.pop("partial_rotary_factor", 1) != 1:
    raise InputError(f"{source}: partial_rotary_factor is not 1", _REMEDY)
  wanted = _ROPE_FIELDS[kind]
  if kind == "default":
    # Leftovers of another type have no effect in transformers either.
    part = {}
  if set(part) != set(wanted):
    raise InputError(
      f"{source}: type {kind} with the fields {sorted(part)}, expected "
      f"{sorted(wanted)}",
      _REMEDY,
    )
  bad = [name for name in wanted if not hf_config.POSITIVE.fits(part[name])]
  if bad or (
    kind == "llama3" and part["high_freq_factor"] <= part["low_freq_factor"]
  ):
    raise InputError(
      f"{source}: {', '.join(bad) or 'high_freq_factor'} should be a number "
      f"above {'0' if bad else 'low_freq_factor'}",
      _REMEDY,
    )
  return kind, {name: float(part[name]) for name in wanted}


@dataclasses.dataclass(frozen=True)
class Output:
  """Logits float32 [B, T, V]; with a cache, of the last token only."""

  logits: jax.Array
  past_key_values: Any = None


class Llama:
  """A decoder without parameters; they come with every call.

  Attributes:
    config: transformers' LlamaConfig, MistralConfig or Qwen2Config.
    params_shape_tree: nested dict of `jax.ShapeDtypeStruct`.
    base_model_prefix: of the parameters' names.
  """

  base_model_prefix = "model"

  def __init__(self, config: Any, rope: Rope, dtype: Any = jnp.float32):
    self.config = config
    self.dtype = jnp.dtype(dtype)
    self._heads = config.num_attention_heads
    self._shared = config.num_key_value_heads
    self._width = getattr(config, "head_dim", None) or (
      config.hidden_size // self._heads
    )
    self._frequencies = rope.frequencies(self._width)
    self._windows = _windows(config)
    self.params_shape_tree = self._shapes()

  def prepare_inputs_for_generation(
    self, ids: jax.Array, max_length: int, attention_mask: jax.Array
  ) -> dict[str, Any]:
    """Arguments of a first call besides ids [B, T]; room for `max_length`."""
    shape = (ids.shape[0], max_length, self._shared, self._width)
    room = [jnp.zeros(shape, self.dtype)] * self.config.num_hidden_layers
    mask = jnp.ones((ids.shape[0], max_length), jnp.int32)
    return {
      "past_key_values": {
        "keys": room,
        "values": list(room),
        "length": jnp.int32(0),
      },
      "attention_mask": mask.at[:, : ids.shape[1]].set(attention_mask),
      "position_ids": attention_mask.cumsum(axis=-1) - 1,
    }

  def update_inputs_for_generation(
    self, output: Output, inputs: Mapping[str, Any]
  ) -> dict[str, Any]:
    """The arguments of the next call, which has one token per row."""
    return {
      **inputs,
      "past_key_values": output.past_key_values,
      "position_ids": inputs["position_ids"][:, -1:] + 1,
    }

  def __call__(
    self,
    ids: jax.Array,
    *,
    params: Params,
    attention_mask: jax.Array | None = None,
    position_ids: jax.Array | None = None,
    past_key_values: Mapping[str, Any] | None = None,
    return_dict: bool = True,
  ) -> Output:
    """Reads tokens.

    Args:
      ids: int [B, T].
      params: of `params_shape_tree`'s shapes.
      attention_mask: [B, T], or [B, S] with a cache; 0 hides a token.
      position_ids: [B, T]; 0, 1, ... if None.
      past_key_values: cache of `prepare_inputs_for_generation`.
      return_dict: always True; part of transformers' interface.
    """
    del return_dict
    ids = jnp.asarray(ids)
    if position_ids is None:
      position_ids = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    cache = past_key_values
    start = 0 if cache is None else cache["length"]
    length = ids.shape[1] if cache is None else cache["keys"][0].shape[1]
    # Row: a query's place in the cache; column: a key's.
    distance = (
      start + jnp.arange(ids.shape[1])[:, None] - jnp.arange(length)[None]
    )
    real = jnp.ones((ids.shape[0], length), bool)
    if attention_mask is not None:
      real = jnp.asarray(attention_mask).astype(bool)
    seen = (distance >= 0) & real[:, None]
    turns = self._turns(position_ids)
    own = params["model"]
    x = own["embed_tokens"]["embedding"][ids].astype(self.dtype)
    new: dict[str, Any] = {"keys": [], "values": []}
    for index, window in enumerate(self._windows):
      near = seen if window is None else seen & (distance < window)
      part = own["layers"][str(index)]
      past = None
      if cache is not None:
        past = (cache["keys"][index], cache["values"][index], start)
      x, key, value = self._layer(part, x, near, turns, past)
      new["keys"].append(key)
      new["values"].append(value)
    if cache is not None:
      x = x[:, -1:]
      new["length"] = start + ids.shape[1]
    x = self._norm(own["norm"], x)
    logits = jnp.einsum(
      "btd,dv->btv",
      x,
      params["lm_head"]["kernel"].astype(self.dtype),
      preferred_element_type=jnp.float32,
    )
    return Output(logits, None if cache is None else new)

  def _layer(self, part, x, seen, turns, past):
    """[B, T, D], bool [B, T, S] -> [B, T, D], keys and values [B, S, G, d]."""
    attention = part["self_attn"]
    source = self._norm(part["input_layernorm"], x)
    query, key, value = (
      self._dense(attention[f"{name}_proj"], source).reshape(
        *x.shape[:2], -1, self._width
      )
      for name in "qkv"
    )
    query, key = _turned(query, turns), _turned(key, turns)
    if past is not None:
      place = (0, past[2], 0, 0)
      key = jax.lax.dynamic_update_slice(past[0], key, place)
      value = jax.lax.dynamic_update_slice(past[1], value, place)
    # Softmax in float32; G key heads serve H / G query heads each.
    out = jax.nn.dot_product_attention(
      query, key, value, mask=seen[:, None], implementation="xla"
    )
    out = out.reshape(*x.shape[:2], -1)
    x = x + self._dense(attention["o_proj"], out)
    source, mlp = self._norm(part["post_attention_layernorm"], x), part["mlp"]
    gate = self._activation(self._dense(mlp["gate_proj"], source))
    inner = gate * self._dense(mlp["up_proj"], source)
    return x + self._dense(mlp["down_proj"], inner), key, value

  def _activation(self, x: jax.Array) -> jax.Array:
    from transformers.modeling_flax_utils import ACT2FN

    return ACT2FN[self.config.hidden_act](x)

  def _dense(self, part: Params, x: jax.Array) -> jax.Array:
    out = x @ part["kernel"].astype(self.dtype)
    return out + part["bias"].astype(self.dtype) if "bias" in part else out

  def _norm(self, part: Params, x: jax.Array) -> jax.Array:
    """Root mean square norm, its statistics in float32."""
    wide = x.astype(jnp.float32)
    scale = jnp.square(wide).mean(axis=-1, keepdims=True)
    normal = wide * jax.lax.rsqrt(scale + self.config.rms_norm_eps)
    return part["weight"].astype(self.dtype) * normal.astype(self.dtype)

  def _turns(self, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B, T] -> cosines and sines, float32 [B, T, 1, d]."""
    angles = positions[..., None].astype(jnp.float32) * self._frequencies
    angles = jnp.concatenate([angles, angles], axis=-1)[:, :, None]
    return jnp.cos(angles), jnp.sin(angles)

  def _shapes(self) -> dict[str, Any]:
    config = self.config
    width, inner = config.hidden_size, config.intermediate_size
    qwen = config.model_type == "qwen2"
    biased = getattr(config, "attention_bias", False)
    wide = getattr(config, "mlp_bias", False)
    queries, keys = self._heads * self._width, self._shared * self._width
    matrices = {
      "self_attn/q_proj": (width, queries, qwen or biased),
      "self_attn/k_proj": (width, keys, qwen or biased),
      "self_attn/v_proj": (width, keys, qwen or biased),
      "self_attn/o_proj": (queries, width, biased and not qwen),
      "mlp/gate_proj": (width, inner, wide),
      "mlp/up_proj": (width, inner, wide),
      "mlp/down_proj": (inner, width, wide),
    }
    layer = {
      "input_layernorm/weight": (width,),
      "post_attention_layernorm/weight": (width,),
    }
    for name, (into, out, bias) in matrices.items():
      layer[f"{name}/kernel"] = (into, out)
      if bias:
        layer[f"{name}/bias"] = (out,)
    shapes = {
      "model/embed_tokens/embedding": (config.vocab_size, width),
      "model/norm/weight": (width,),
      "lm_head/kernel": (width, config.vocab_size),
    }
    for index in range(config.num_hidden_layers):
      for name, shape in layer.items():
        shapes[f"model/layers/{index}/{name}"] = shape
    return flax.traverse_util.unflatten_dict(
      {
        tuple(name.split("/")): jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in shapes.items()
      }
    )


def _turned(x: jax.Array, turns: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Rotates each head's first half against its second: [B, T, H, d]."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  other = jnp.concatenate([-second, first], axis=-1)
  cos, sin = turns
  return (x.astype(jnp.float32) * cos + other * sin).astype(x.dtype)


def _windows(config: Any) -> list[int | None]:
  """The tokens back that each layer sees, itself included; None: all."""
  layers, window = config.num_hidden_layers, None
  if config.model_type == "mistral":
    window = config.sliding_window
  if config.model_type != "qwen2":
    return [window] * layers
  return [
    config.sliding_window if kind == "sliding_attention" else None
    for kind in config.layer_types
  ]
