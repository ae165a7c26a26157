"""The sharding policy: which axis of an array lies on which mesh axis.

The mesh has two axes. `data` splits the batch, the resident features and,
with FSDP, parameters and optimizer state; `model` splits the wide axes of
the network. All other code uses logical names, so that a change of layout is a
change of `RULES` or `PARAMETERS`. The frozen models have their own tables of
the same kind (`teachers/blip2/sharding_rules.py`,
`teachers/language/language_model.place`).
"""

import collections
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from input_pipeline.io.errors import InputError

DATA, MODEL = "data", "model"
# Logical axis -> mesh axis; None is replicated.
RULES: Mapping[str, str | None] = {
  "batch": DATA,
  "shards": DATA,
  "embed": None,
  "heads": MODEL,
  "mlp": MODEL,
  "vocabulary": MODEL,
}
# Path of a parameter -> its axes; the first match counts, others are whole.
# If two axes ask for `model` the later one gets it: logits over the vocabulary
# are then computed, and summed, in parts.
PARAMETERS: tuple[tuple[str, tuple[str | None, ...]], ...] = (
  (r"noun_classifier/layer_1/dense/kernel$", ("mlp", "vocabulary")),
  (r"noun_classifier/layer_1/dense/bias$", ("vocabulary",)),
  (
    r"(noun_classifier|verb_mlp|pair_query)/layer_0/dense/kernel$",
    ("embed", "mlp"),
  ),
  (r"(noun_classifier|verb_mlp|pair_query)/layer_0/dense/bias$", ("mlp",)),
  (r"(verb_mlp|pair_query)/layer_1/dense/kernel$", ("mlp", "embed")),
  (r"decoder/linear1/dense/kernel$", ("embed", "mlp")),
  (r"decoder/linear1/dense/bias$", ("mlp",)),
  (r"decoder/linear2/dense/kernel$", ("mlp", "embed")),
  (r"/(query|key|value)/kernel$", ("embed", "heads", None)),
  (r"/(query|key|value)/bias$", ("heads", None)),
  (r"/out/kernel$", ("heads", None, "embed")),
)
# FSDP leaves vectors and smaller arrays whole: gathering them costs more than
# keeping them.
_FSDP_MIN_SIZE = 1024


def make_mesh(
  data: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A mesh with axes ("data", "model").

  Args:
    data: devices along the batch; -1 takes all that `model` leaves.
    model: devices along the network's wide axes.
    devices: the devices to use; all of all processes if None.

  Raises:
    InputError: data * model is not the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  if data == -1 and model > 0:
    data = len(devices) // model
  if data < 1 or model < 1 or data * model != len(devices):
    raise InputError(
      f"a mesh of data={data} x model={model} does not use exactly the "
      f"{len(devices)} devices there are",
      f"choose two numbers whose product is {len(devices)}, or data=-1",
    )
  return jax.make_mesh(
    (data, model),
    (DATA, MODEL),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=devices,
  )


def partition_spec(*axes: str | None) -> PartitionSpec:
  """The spec of an array from its axes' logical names; None is replicated."""
  return PartitionSpec(
    *(None if axis is None else RULES[axis] for axis in axes)
  )


def named_sharding(mesh: Mesh, *axes: str | None) -> NamedSharding:
  return NamedSharding(mesh, partition_spec(*axes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis over `data`, the others whole."""
  return named_sharding(mesh, "batch")


def replicated(mesh: Mesh) -> NamedSharding:
  return named_sharding(mesh)


def parameter_spec(
  path: str, shape: Sequence[int], mesh: Mesh, *, fsdp: bool = False
) -> PartitionSpec:
  """The spec of a parameter, or of its moments in the optimizer state.

  Args:
    path: its names, joined by "/".
    shape: an axis that the mesh axis does not divide stays whole.
    mesh: the mesh.
    fsdp: also split the largest remaining axis over `data`.
  """
  wanted = _parameter_axes(path, len(shape))
  spec: list[str | None] = [None] * len(shape)
  for axis in reversed(range(len(shape))):
    place = RULES[wanted[axis]] if wanted[axis] else None
    if place and place not in spec and shape[axis] % mesh.shape[place] == 0:
      spec[axis] = place
  if fsdp and len(shape) > 1 and math.prod(shape) >= _FSDP_MIN_SIZE:
    free = [
      axis
      for axis, size in enumerate(shape)
      if spec[axis] is None and size % mesh.shape[DATA] == 0
    ]
    if free:
      spec[max(free, key=lambda axis: shape[axis])] = DATA
  return PartitionSpec(*spec)


def _parameter_axes(path: str, rank: int) -> tuple[str | None, ...]:
  for pattern, axes in PARAMETERS:
    if re.search(pattern, path) and len(axes) == rank:
      return axes
  return (None,) * rank


def state_shardings(mesh: Mesh, shapes: Any, *, fsdp: bool = False) -> Any:
  """The sharding of every leaf of a state, parameters or optimizer state."""

  def place(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return NamedSharding(
      mesh, parameter_spec(name, leaf.shape, mesh, fsdp=fsdp)
    )

  return jax.tree_util.tree_map_with_path(place, shapes)


def check_batch_size(mesh: Mesh, global_size: int) -> None:
  """Raises InputError unless the devices divide the global batch."""
  shards = mesh.shape[DATA]
  if global_size % shards:
    raise InputError(
      f"a batch of {global_size} does not divide over {shards} devices "
      f"(mesh axis {DATA!r})",
      f"choose a batch size that is a multiple of {shards}",
    )


def put_batch(
  mesh: Mesh, host_batch: Mapping[str, np.ndarray]
) -> dict[str, jax.Array]:
  """Places this process's part of a batch on the devices.

  Args:
    mesh: the mesh of all processes.
    host_batch: arrays with the same leading axis, this process's examples.

  Returns:
    Global arrays, sharded over `data` along their leading axis.

  Raises:
    InputError: the devices do not divide the batch, or the arrays differ in
      their leading axis.
  """
  sizes = collections.Counter(len(value) for value in host_batch.values())
  if len(sizes) > 1:
    raise InputError(
      f"the arrays of one batch have leading axes of {sorted(sizes)}",
      "build batches with input_pipeline.stream",
    )
  for size in sizes:
    check_batch_size(mesh, size * _num_processes(mesh))
  sharding = batch_sharding(mesh)
  return {
    key: jax.make_array_from_process_local_data(sharding, value)
    for key, value in host_batch.items()
  }


def process_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
  """The rows of a global batch that lie on this process's devices.

  Returns:
    int64 [n], ascending. If the `model` axis spans processes, several of them
    have the same rows.

  Raises:
    InputError: the devices do not divide the batch.
  """
  check_batch_size(mesh, batch_size)
  places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
  rows = [np.arange(batch_size)[index] for index in places.values()]
  return np.unique(np.concatenate(rows))


def put_rows(
  mesh: Mesh,
  values: Mapping[str, np.ndarray],
  batch_size: int,
  axis: int = 0,
) -> dict[str, jax.Array]:
  """Places the rows of `process_rows` on the devices.

  Args:
    mesh: the mesh of all processes.
    values: arrays whose `axis` holds those rows.
    batch_size: rows on all processes.
    axis: the axis of the batch; others are whole.

  Returns:
    Global arrays with `batch_size` rows, sharded over `data`.
  """
  mine = process_rows(mesh, batch_size)
  where = named_sharding(mesh, *[None] * axis, "batch")

  def place(value):
    def part(index):
      rows = index[axis]
      start = int(np.searchsorted(mine, rows.start or 0))
      count = (batch_size if rows.stop is None else rows.stop) - (
        rows.start or 0
      )
      return value[(*index[:axis], slice(start, start + count))]

    shape = (*value.shape[:axis], batch_size, *value.shape[axis + 1 :])
    return jax.make_array_from_callback(shape, where, part)

  return {key: place(value) for key, value in values.items()}


def _num_processes(mesh: Mesh) -> int:
  return len({device.process_index for device in mesh.devices.flat})
