"""Shardings of BLIP-2's parameters on a mesh ("data", "model").

The language model is tensor-parallel: heads and feed-forward are split, so
that each layer costs one sum over "model" per part. The vision tower and the
Q-Former are split likewise where columns and heads agree; the tower's fused
query-key-value matrix is not, because its halves would not be heads.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mipd_jax.devices import sharding

HEADS = "heads"
# End of a parameter's path, joined by "/" -> logical axes. The first match
# counts; without a match a parameter is whole on every device.
Rule = tuple[str, tuple[str | None, ...]]
RULES: tuple[Rule, ...] = (
  # T5
  (r"Attention/[qkv]/kernel", ("embed", HEADS)),
  (r"Attention/o/kernel", (HEADS, "embed")),
  (r"DenseReluDense/wi(_[01])?/kernel", ("embed", "mlp")),
  (r"DenseReluDense/wo/kernel", ("mlp", "embed")),
  (r"relative_attention_bias/embedding", (None, HEADS)),
  (r"(shared|embed_tokens)/embedding", ("vocabulary", "embed")),
  (r"lm_head/kernel", ("embed", "vocabulary")),
  # OPT
  (r"[qkv]_proj/kernel", ("embed", HEADS)),
  (r"[qkv]_proj/bias", (HEADS,)),
  (r"out_proj/kernel", (HEADS, "embed")),
  # OPT and the vision tower
  (r"fc1/kernel", ("embed", "mlp")),
  (r"fc1/bias", ("mlp",)),
  (r"fc2/kernel", ("mlp", "embed")),
  # Q-Former
  (r"attention/(query|key|value)/kernel", ("embed", HEADS)),
  (r"attention/(query|key|value)/bias", (HEADS,)),
  (r"attention/output/dense/kernel", (HEADS, "embed")),
  (r"intermediate_query/dense/kernel", ("embed", "mlp")),
  (r"intermediate_query/dense/bias", ("mlp",)),
  (r"output_query/dense/kernel", ("mlp", "embed")),
)


def partition_spec(
  config: Any, path: tuple[str, ...], shape: tuple[int, ...], mesh: Mesh
) -> PartitionSpec:
  """Spec of one parameter; axes that the devices do not divide stay whole.

  Columns of heads are split only between heads.
  """
  parts = []
  for axis, size in zip(_axes(path, len(shape)), shape, strict=True):
    (name,) = sharding.partition_spec(axis)
    count = _num_heads(config, path) if axis == HEADS else size
    parts.append(None if name is None or count % mesh.shape[name] else name)
  return PartitionSpec(*parts)


def shardings(
  config: Any, tree: Mapping[str, Any], mesh: Mesh
) -> dict[str, Any]:
  """NamedSharding of every parameter of a tree of arrays or shapes."""
  flat = {
    path: NamedSharding(mesh, partition_spec(config, path, leaf.shape, mesh))
    for path, leaf in flax.traverse_util.flatten_dict(tree).items()
  }
  return flax.traverse_util.unflatten_dict(flat)


def placer(
  config: Any, mesh: Mesh | None
) -> Callable[[tuple[str, ...], np.ndarray], jax.Array]:
  """(path, array) -> the array on the mesh, or on the default device."""

  def place(path: tuple[str, ...], array: np.ndarray) -> jax.Array:
    if mesh is None:
      return jax.device_put(array)
    spec = partition_spec(config, path, array.shape, mesh)
    return jax.device_put(array, NamedSharding(mesh, spec))

  return place


def fits(rule: Rule, path: tuple[str, ...]) -> bool:
  """Whether a rule matches a parameter; an earlier match takes precedence."""
  return re.search(f"{rule[0]}$", "/".join(path)) is not None


def _axes(path: tuple[str, ...], rank: int) -> tuple[str | None, ...]:
  whole = ("", (None,) * rank)
  return next((rule for rule in RULES if fits(rule, path)), whole)[1]


def _num_heads(config: Any, path: tuple[str, ...]) -> int:
  if path[0] == "qformer":
    return config.qformer_config.num_attention_heads
  return config.text_config.num_attention_heads
