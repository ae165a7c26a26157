"""Which axis of an array lies on which axis of the machine: the policy.

The mesh has two axes. `data` splits the batch; `model` splits the wide axes
of the network. Everything else asks this file by logical name, so that a
change of layout is a change of `RULES`.
"""

import collections
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from input_pipeline.errors import InputError

DATA, MODEL = "data", "model"
# Logical axis -> mesh axis; None is replicated.
RULES: Mapping[str, str | None] = {
  "batch": DATA,
  "embed": None,
  "heads": MODEL,
  "mlp": MODEL,
  "vocabulary": MODEL,
}


def make_mesh(
  data: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A mesh with axes ("data", "model").

  Args:
    data: devices along the batch; -1 takes all that `model` leaves.
    model: devices along the network's wide axes.
    devices: those to use, all of all processes if None.

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


def _num_processes(mesh: Mesh) -> int:
  return len({device.process_index for device in mesh.devices.flat})
