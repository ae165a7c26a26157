"""Meshes, batches on them, and the placement of every parameter.

`python -m tests.test_sharding` writes the golden table anew.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from mipd_jax import presets
from mipd_jax.devices import sharding
from mipd_jax.losses import banks as bank_lib
from mipd_jax.models.config import Sizes
from mipd_jax.models.mipd import Mipd
from tests.fixtures import batches

GOLDEN = pathlib.Path(__file__).parents[1] / "golden_sharding.txt"
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


@needs_eight
@pytest.mark.parametrize(("data", "model"), [(8, 1), (4, 2), (1, 8)])
@pytest.mark.parametrize("axis", [0, 1])
def test_put_rows_gives_each_device_its_rows(data, model, axis):
  mesh = sharding.make_mesh(data, model, jax.devices()[:8])
  assert sharding.process_rows(mesh, 16).tolist() == list(range(16))
  value = np.arange(2 * 16 * 3).reshape(2, 16, 3)
  value = value if axis else np.moveaxis(value, 1, 0)
  placed = sharding.put_rows(mesh, {"x": value}, 16, axis)["x"]
  np.testing.assert_array_equal(placed, value)
  for shard in placed.addressable_shards:
    assert shard.data.shape[axis] == 16 // data
  with pytest.raises(InputError, match="batch of 12 does not divide over 5"):
    sharding.process_rows(
      sharding.make_mesh(devices=jax.devices()[:5]), batch_size=12
    )


def _spec(path, shape, data=4, model=2, fsdp=False):
  mesh = jax.sharding.AbstractMesh((data, model), ("data", "model"))
  return tuple(sharding.parameter_spec(path, shape, mesh, fsdp=fsdp))


def test_big_heads_are_divided_and_what_does_not_divide_is_whole():
  head = "student/noun_classifier/layer_1/dense/kernel"
  assert _spec(head, (1024, 11538)) == (None, "model")
  # 11,538 nouns do not divide by four; the hidden axis does.
  assert _spec(head, (1024, 11538), model=4) == ("model", None)
  assert _spec(head, (1023, 11537)) == (None, None)
  assert _spec(f"opt_state/1/0/mu/{head}", (1024, 11538)) == (None, "model")
  one_head = "teacher_branch/attention/query/kernel"
  assert _spec(one_head, (512, 1, 512)) == (None, None, None)


def test_fsdp_divides_the_largest_axis_that_is_left():
  head = "student/noun_classifier/layer_1/dense/kernel"
  assert _spec(head, (1024, 11538), fsdp=True) == ("data", "model")
  assert _spec("student/project", (1024, 512), fsdp=True) == ("data", None)
  assert _spec("student/project", (512, 1026), fsdp=True) == ("data", None)
  assert _spec("student/norm/scale", (2048,), fsdp=True) == (None,)
  assert _spec("student/odd", (1023, 513), fsdp=True) == (None, None)


def _table() -> str:
  """Path, shape and spec of every parameter at the paper's sizes."""
  sizes = Sizes(num_verbs=504, num_roles=190, num_nouns=11538)
  config, _ = presets.preset_defaults("mipd")
  rows, tokens = (
    2,
    {
      schema.STUDENT_TOKENS: (577, 1024),
      schema.TEACHER_TOKENS: (257, 1408),
      schema.RATIONALE_TOKENS: (4, 77, 768),
      schema.RATIONALE_MASK: (4, 77),
    },
  )
  batch = {
    key: jnp.zeros((rows, *tokens.get(key, value.shape[1:])), value.dtype)
    for key, value in jax.eval_shape(lambda: batches.batch(rows)).items()
  }
  banks = {"verb_text": 504, "role_text": 190, "noun_text": 11538}
  banks = {key: jnp.zeros((count, 768)) for key, count in banks.items()}
  banks[bank_lib.VERB_TRAINED] = jnp.ones(504, bool)
  params = jax.eval_shape(
    Mipd(config, sizes).init, jax.random.key(0), batch, banks
  )["params"]
  lines = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    whole, fsdp = (_spec(name, leaf.shape, fsdp=on) for on in (False, True))
    lines.append(f"{name} {list(leaf.shape)} {_said(whole)} {_said(fsdp)}\n")
  return "".join(lines)


def _said(spec) -> str:
  return f"({','.join(axis or '-' for axis in spec)})"


def test_golden_specs():
  """path, shape, spec on 4 x 2 devices, the same with FSDP."""
  assert _table().splitlines() == GOLDEN.read_text().splitlines()


if __name__ == "__main__":
  GOLDEN.write_text(_table())
