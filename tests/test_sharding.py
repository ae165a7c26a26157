import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.errors import InputError
from mipd_jax import sharding

needs_eight = pytest.mark.skipif(
  jax.device_count() < 8, reason="needs 8 devices, see conftest.py"
)


@needs_eight
@pytest.mark.parametrize(
  ("data", "model", "shape"),
  [(-1, 1, (8, 1)), (-1, 2, (4, 2)), (2, 4, (2, 4)), (8, 1, (8, 1))],
)
def test_mesh_shape(data, model, shape):
  mesh = sharding.make_mesh(data, model, jax.devices()[:8])
  assert mesh.devices.shape == shape
  assert mesh.axis_names == ("data", "model")


@pytest.mark.parametrize(("data", "model"), [(3, 1), (-1, 3), (0, 1), (2, -1)])
def test_mesh_that_does_not_fit_names_the_devices(data, model):
  devices = jax.devices()[:1] * 8
  with pytest.raises(InputError, match="8 devices"):
    sharding.make_mesh(data, model, devices)


@needs_eight
def test_put_batch_gives_each_device_its_rows():
  mesh = sharding.make_mesh(4, 2, jax.devices()[:8])
  batch = {"x": np.arange(16).reshape(8, 2), "y": np.arange(8.0)}
  placed = sharding.put_batch(mesh, batch)
  for key, value in batch.items():
    np.testing.assert_array_equal(placed[key], value)
    rows = {
      (s.index[0].start or 0, s.data.shape[0])
      for s in placed[key].addressable_shards
    }
    assert rows == {(0, 2), (2, 2), (4, 2), (6, 2)}
  assert len(placed["x"].addressable_shards) == 8


@needs_eight
def test_a_sharded_step_equals_one_device():
  x = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
  w = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)

  def step(w, batch):
    return jnp.tanh(batch["x"] @ w).sum(axis=0)

  answers = []
  for count in (1, 8):
    mesh = sharding.make_mesh(devices=jax.devices()[:count])
    w_there = jax.device_put(w, sharding.replicated(mesh))
    answers.append(jax.jit(step)(w_there, sharding.put_batch(mesh, {"x": x})))
  np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5)


@needs_eight
def test_batch_that_does_not_divide():
  mesh = sharding.make_mesh(devices=jax.devices()[:8])
  with pytest.raises(InputError, match=r"batch of 12 .* 8 devices"):
    sharding.put_batch(mesh, {"x": np.zeros((12, 2))})


def test_arrays_of_different_length_are_refused():
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with pytest.raises(InputError, match=r"\[2, 3\]"):
    sharding.put_batch(mesh, {"x": np.zeros(2), "y": np.zeros(3)})


def test_logical_axes():
  spec = sharding.partition_spec("batch", None, "mlp")
  assert tuple(spec) == ("data", None, "model")
