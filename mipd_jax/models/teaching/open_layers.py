"""Frozen layers of the teacher through which learned prompts still pass.

Prompts on tokens that no frozen layer reads any more can only shift them.
Where layers of the teacher are kept open, they run in every training step,
with frozen weights, and prompts change what they compute (visual prompt tuning,
Jia et al. 2022, arXiv 2203.12119):

- "qformer": scene prompts are queries beside a Q-Former's own: through its
  frozen layers they read the image, one another and these. The others don't
  read the prompts, so that they cost no gradient and stay what they are.
- "tower": the cache holds the image tokens of a lower depth. The scene prompt
  and the instance prompt are added there, and the last blocks of the image
  tower make the tokens that are read.

Weights carry the names of transformers' BLIP-2. Letters: B images, M tokens of
width T, P prompts, Q of a Q-Former's queries, D its width.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mipd_jax.models.attention import absorbed, plain, project
from mipd_jax.models.memory import Memory

QFORMER, TOWER = "qformer", "tower"
# Key of the banks that holds the weights, a nested dict.
WEIGHTS = "open_layers"
ACTIVATIONS = {
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
  "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
  "relu": jax.nn.relu,
}
Params = Mapping[str, Any]


def parse(name: str) -> tuple[str, int]:
  """Kind and number of layers of "qformer" (all, so 0), "tower-1", ...

  Raises:
    ValueError: another name.
  """
  kind, _, count = name.partition("-")
  if name == QFORMER:
    return QFORMER, 0
  if kind == TOWER and count.isdecimal() and int(count):
    return TOWER, int(count)
  raise ValueError(
    f"open layers {name!r} are not {QFORMER!r}, or {TOWER + '-1'!r} and more"
  )


def from_text(text: str) -> "OpenLayers":
  """The layers as the plan of a cache tells them (`OpenLayers.to_text`)."""
  return OpenLayers(**json.loads(text))


def from_bank(bank: Mapping[str, Array], dtype: jnp.dtype) -> dict[str, Params]:
  """The weights among a cache's labels, as a bank; {} without any."""
  nested: dict[str, Any] = {}
  for name, values in bank.items():
    first, *path = name.split("/")
    if first == WEIGHTS:
      node = nested.setdefault(first, {})
      for part in path[:-1]:
        node = node.setdefault(part, {})
      node[path[-1]] = values.astype(dtype)
  return nested


@dataclasses.dataclass(frozen=True)
class OpenLayers:
  """What to compute; the weights are an argument.

  Attributes:
    kind: QFORMER or TOWER.
    layers: of the Q-Former, or the tower's blocks after the cached tokens.
    heads: of each layer.
    activation: one of `ACTIVATIONS`.
    epsilon: of the layer norms.
    cross_every: of a Q-Former, the layers 0, n, 2n, ... read the image.
  """

  kind: str
  layers: int
  heads: int
  activation: str
  epsilon: float
  cross_every: int = 1

  def to_text(self) -> str:
    return json.dumps(dataclasses.asdict(self), sort_keys=True)

  def read(
    self,
    params: Params,
    tokens: Float[Array, "b m t"],
    prompts: Float[Array, "p d"],
    *,
    absorb: bool = True,
  ) -> Float[Array, "b p d"]:
    """What prompts beside the Q-Former's own queries make of an image.

    Args:
      params: its "query_tokens" [1, Q, D] and "qformer", in the dtype of
        compute.
      tokens: the teacher's, in that dtype.
      prompts: further queries.
      absorb: compute no keys and values of image tokens for the prompts; the
        same result.
    """
    own = params["query_tokens"][0]
    layers, batch = params[QFORMER], len(tokens)

    def started(queries):
      x = self._norm(layers["layernorm"], queries.astype(own.dtype))
      return jnp.broadcast_to(x, (batch, *x.shape))

    x, own = started(prompts), started(own)
    for index in range(self.layers):
      layer = layers["encoder"]["layer"][str(index)]
      both = jnp.concatenate([own, x], axis=1)
      reads = index % self.cross_every == 0
      own = self._layer(layer, own, own, tokens if reads else None, False)
      x = self._layer(layer, x, both, tokens if reads else None, absorb)
    return x

  def run(
    self, params: Params, tokens: Float[Array, "b m t"]
  ) -> Float[Array, "b m t"]:
    """The tower's last blocks and its last norm.

    Args:
      params: its "post_layernorm" and blocks "0", "1", ..., the first that is
        open being "0", in the dtype of compute.
      tokens: of the cached depth, with prompts added.
    """
    # Of what a block computes only its input is kept for the gradient.
    block = jax.checkpoint(self._block)
    for index in range(self.layers):
      tokens = block(params[str(index)], tokens)
    return self._norm(params["post_layernorm"], tokens)

  def _layer(self, params, x, queries, tokens, absorb):
    """A layer: x [B, Q, D] reads queries and tokens, unless these are None."""
    x = self._attended(params["attention"], x, queries, False)
    if tokens is not None:
      x = self._attended(params["crossattention"], x, tokens, absorb)
    inner = _dense(params["intermediate_query"]["dense"], x)
    output = params["output_query"]
    x = x + _dense(output["dense"], ACTIVATIONS[self.activation](inner))
    return self._norm(output["LayerNorm"], x)

  def _attended(self, params, x, seen, absorb):
    """Post-norm attention of BERT: x [B, Q, D] reads seen [B, M, _]."""
    heads = params["attention"]
    weights = {name: self._split(heads[name]) for name in heads}
    query = project(x, *weights["query"])
    query /= jnp.sqrt(query.shape[-1]).astype(query.dtype)
    form = absorbed if absorb else plain
    logits, pool = form(
      query, Memory.of(seen), weights["key"], weights["value"]
    )
    share = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
    out = params["output"]
    read = _dense(out["dense"], _merged(pool(share)))
    return self._norm(out["LayerNorm"], x + read)

  def _block(self, params, x):
    """A pre-norm block of a vision transformer."""
    y = self._norm(params["layer_norm1"], x)
    attention = params["self_attn"]
    query, key, value = (
      part.reshape(*part.shape[:2], self.heads, -1)
      for part in jnp.split(_dense(attention["qkv"], y), 3, axis=-1)
    )
    seen = jax.nn.dot_product_attention(query, key, value, implementation="xla")
    x = x + _dense(attention["projection"], seen.reshape(x.shape))
    y = self._norm(params["layer_norm2"], x)
    inner = ACTIVATIONS[self.activation](_dense(params["mlp"]["fc1"], y))
    return x + _dense(params["mlp"]["fc2"], inner)

  def _norm(self, params, x):
    """Layer norm with its statistics in float32."""
    y = jax.nn.standardize(x.astype(jnp.float32), epsilon=self.epsilon)
    return (y * params["scale"] + params["bias"]).astype(x.dtype)

  def _split(self, params):
    """A dense layer's kernel [i, h, w] and bias [h, w], by heads."""
    kernel, bias = params["kernel"], params["bias"]
    return (
      kernel.reshape(len(kernel), self.heads, -1),
      bias.reshape(self.heads, -1),
    )


def _dense(params: Params, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
  """A dense layer, whose bias may be absent."""
  y = x @ params["kernel"]
  return y + params["bias"] if "bias" in params else y


def _merged(x: Float[Array, "b h n w"]) -> Float[Array, "b n d"]:
  return jnp.moveaxis(x, 1, 2).reshape(x.shape[0], x.shape[2], -1)
