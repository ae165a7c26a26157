"""A split in device memory: read once, gathered by index from then on.

Every field is one array [rows, shards, ...], example r*S + s at [r, s], with
the virtual shards of `input_pipeline.order` divided over `data`. A device
gathers its rows of a batch from its own memory: no device asks another.

Large fields are kept as blocks [k, 128] of whole TPU tiles. XLA lays such
arrays out row by row; tokens of 577 x 1024 it would transpose to save the
padding, and copy all of them to take one.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from input_pipeline import order, schema
from input_pipeline.stream import Source
from mipd_jax.devices import sharding

Spec = Mapping[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Layout:
  """Shapes and places of a resident split; nothing is read.

  Attributes:
    mesh: whose `data` axis divides the shards.
    num_examples, batch_size: of the split and of its batches; they fix the
      shards.
    example: shape and dtype of every field of one example.
  """

  mesh: Mesh
  num_examples: int
  batch_size: int
  example: Spec

  @property
  def num_shards(self) -> int:
    return order.num_shards(self.num_examples, self.batch_size)

  @property
  def num_rows(self) -> int:
    return order.num_rows(self.num_examples, self.batch_size)

  @property
  def is_possible(self) -> bool:
    """Whether each device gets whole shards."""
    return self.num_shards % self.mesh.shape[sharding.DATA] == 0

  @property
  def sharding(self) -> jax.sharding.NamedSharding:
    return sharding.named_sharding(self.mesh, None, "shards")

  def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Of the arrays on the devices."""
    return {
      key: jax.ShapeDtypeStruct(
        (self.num_rows, self.num_shards, *_stored_shape(field)),
        field.dtype,
        sharding=self.sharding,
      )
      for key, field in self.example.items()
    }

  def device_bytes(self) -> int:
    """Bytes of the fields on each device."""
    devices = self.mesh.shape[sharding.DATA]
    return sum(
      math.prod(x.shape) * np.dtype(x.dtype).itemsize // devices
      for x in self.shapes().values()
    )


_LANES, _TILE_BYTES = 128, 4096


def _stored_shape(field: jax.ShapeDtypeStruct) -> tuple[int, ...]:
  """Shape of one example on the devices: [k, 128] of whole tiles if large."""
  size = math.prod(field.shape) * np.dtype(field.dtype).itemsize
  if size < _TILE_BYTES:
    return field.shape
  tile = _TILE_BYTES // np.dtype(field.dtype).itemsize
  whole = -(-math.prod(field.shape) // tile) * tile
  return (whole // _LANES, _LANES)


def pack(layout: Layout, fields: Mapping[str, np.ndarray]) -> dict:
  """Fields [n, ...] of examples as they lie on the devices."""
  packed = {}
  for key, value in fields.items():
    shape = _stored_shape(layout.example[key])
    if shape != value.shape[1:]:
      flat = value.reshape(len(value), -1)
      value = np.zeros((len(value), math.prod(shape)), value.dtype)
      value[:, : flat.shape[1]] = flat
    packed[key] = value.reshape(len(value), *shape)
  return packed


def _unpack(field: jax.ShapeDtypeStruct, value: jax.Array) -> jax.Array:
  """The inverse for [K, B, ...], on the device."""
  if _stored_shape(field) == field.shape:
    return value
  flat = value.reshape(*value.shape[:2], -1)[..., : math.prod(field.shape)]
  return flat.reshape(*value.shape[:2], *field.shape)


def read_fields(source: Source, indices: np.ndarray) -> dict[str, np.ndarray]:
  """What is kept of some examples: all that a batch has but its mask."""
  return dict(source.read(indices)) | {schema.INDEX: indices.astype(np.int32)}


def layout(source: Source, batch_size: int, mesh: Mesh) -> Layout:
  """The layout of a source; reads one example."""
  first = read_fields(source, np.zeros(1, np.int64))
  example = {
    key: jax.ShapeDtypeStruct(value.shape[1:], value.dtype)
    for key, value in first.items()
  }
  return Layout(mesh, source.num_examples, batch_size, example)


class Resident:
  """Fields on the devices, and batches of them. Make it with `loading.load`.

  Attributes:
    layout: of the arrays.
    arrays: [rows, shards, ...] by field.
  """

  def __init__(self, layout: Layout, arrays: Mapping[str, jax.Array]):
    self.layout = layout
    self.arrays = dict(arrays)
    self._gather = compile_gather(layout)

  def batches(self, rows: np.ndarray, mask: np.ndarray) -> dict[str, jax.Array]:
    """Gathers some batches.

    Args:
      rows: int [K, S, B/S] as `order.step_rows` gives them.
      mask: bool [K, B], False for filler.

    Returns:
      Arrays [K, B, ...], B over `data`, with an `example_mask`.
    """
    mesh, size = self.layout.mesh, self.layout.batch_size
    mine = sharding.process_rows(mesh, size)
    flat = rows.astype(np.int32).reshape(len(rows), size)
    placed = sharding.put_rows(
      mesh, {"rows": flat[:, mine], "mask": mask[:, mine]}, size, axis=1
    )
    batch = self._gather(self.arrays, placed["rows"])
    return batch | {schema.EXAMPLE_MASK: placed["mask"]}


def compile_gather(layout: Layout, one_by_one: bool | None = None) -> Callable:
  """Jits (arrays, rows int32 [K, B]) -> fields [K, B, ...].

  Args:
    layout: of the arrays.
    one_by_one: copy large fields example by example, which TPUs do at the
      speed of their memory and without room for more; by platform if None.
      GPUs take all at once.
  """
  if one_by_one is None:
    one_by_one = layout.mesh.devices.flat[0].platform == "tpu"
  share = layout.batch_size // layout.num_shards
  shards = sharding.partition_spec(None, "shards")
  batch = sharding.partition_spec(None, "batch")

  def take(value, index_KxB):
    if one_by_one and value.ndim == 3 and value.shape[-1] == _LANES:
      found = jax.lax.map(
        functools.partial(
          jax.lax.dynamic_index_in_dim, value, axis=0, keepdims=False
        ),
        index_KxB.reshape(-1),
      )
      return found.reshape(*index_KxB.shape, *value.shape[1:])
    return jnp.take(value, index_KxB, axis=0, mode="clip")

  @jax.jit
  @functools.partial(
    jax.shard_map,
    mesh=layout.mesh,
    in_specs=(shards, batch),
    out_specs=batch,
  )
  def gather(arrays, rows_KxB):
    shard_B = jnp.arange(rows_KxB.shape[1]) // share
    found = {}
    for key, value in arrays.items():
      own = value.shape[1]  # shards of this device
      flat = value.reshape(-1, *value.shape[2:])
      values = take(flat, rows_KxB * own + shard_B)
      found[key] = _unpack(layout.example[key], values)
    return found

  return gather
