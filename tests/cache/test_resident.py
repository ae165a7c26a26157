"""Features in device memory: the same batches, losses and resumes."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from input_pipeline import feature_cache, schema
from input_pipeline.feature_cache import int8
from input_pipeline.feature_cache.plan import Field, SplitPlan
from input_pipeline.io.errors import InputError
from mipd_jax.devices import sharding
from mipd_jax.feeding import feeds, resident
from mipd_jax.feeding.dequantise import dequantise
from mipd_jax.feeding.resident import loading
from mipd_jax.training import loop
from tests import training
from tests.fakes import fakes
from tests.fixtures import batches

EXAMPLES = 150  # over 8 shards of batches of 8: two of 18 rows, six of 19


def _mesh(data, model=1):
  if jax.device_count() < data * model:
    pytest.skip("needs eight devices, see conftest.py")
  return sharding.make_mesh(data, model, jax.devices()[: data * model])


@pytest.fixture(scope="module")
def split(tmp_path_factory):
  """A cached split with int8 tokens, as its source for the devices."""
  fields = (
    Field(schema.STUDENT_TOKENS, (5, 8), "int8"),
    Field(int8.scale_name(schema.STUDENT_TOKENS), (5,), "float32"),
    Field(schema.RATIONALE_TOKENS, (4, 7, 6), "bfloat16"),
    Field(schema.RATIONALE_MASK, (4, 7), "bool"),
  )
  plan = fakes.plan(
    fields=fields,
    splits=(SplitPlan("train", EXAMPLES, ("student", "text")),),
    examples_per_shard=64,
  )
  folder = tmp_path_factory.mktemp("resident") / "cache"
  writer = feature_cache.CacheWriter(folder, plan)
  paths = (feature_cache.LABELS, f"train/{feature_cache.ANNOTATIONS}")
  writer.write_arrays(paths[0], {"verb_text": np.ones((3, 6), np.float32)})
  names = np.array([f"{i}.jpg" for i in range(EXAMPLES)])
  columns = fakes.columns(EXAMPLES)
  writer.write_arrays(paths[1], {feature_cache.NAMES: names, **columns})
  values = fakes.features(plan, "train")
  rng = np.random.default_rng(0)
  shape = (EXAMPLES, *fields[0].shape)
  values[fields[0].name] = rng.integers(-127, 128, shape, np.int8)
  for shard in writer.pending("train"):
    with writer.open_shard(shard) as file:
      rows = slice(shard.start, shard.stop)
      part = plan.part_fields(shard.part)
      file.write({f.name: values[f.name][rows] for f in part})
  writer.finish(paths)
  return feature_cache.open_cache(folder).split("train")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
  """Several chunks a load, the last of which overlaps the one before."""
  monkeypatch.setattr(resident, "_CHUNK_BYTES", 20_000)


def _feeds(source, mesh, size=8):
  layout = resident.layout(source, size, mesh)
  rows = resident._chunk_rows(layout, layout.num_shards)
  assert 1 < rows < layout.num_rows and layout.num_rows % rows
  with loading(source, layout, "load") as ready:
    return feeds.Streaming(source, size, mesh), feeds.FromMemory(ready())


def _assert_same(left, right):
  left, right = list(left), list(right)
  assert len(left) == len(right) > 0
  for a, b in zip(left, right, strict=True):
    assert set(a) == set(b)
    for key in a:
      assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape
      assert a[key].sharding.is_equivalent_to(b[key].sharding, a[key].ndim)
      assert np.asarray(a[key]).tobytes() == np.asarray(b[key]).tobytes(), key


@pytest.mark.parametrize(("data", "model"), [(1, 1), (8, 1), (2, 2)])
def test_streamed_and_resident_batches_are_the_same(split, data, model):
  source = feature_cache.StoredSplit(split)
  mesh = _mesh(data, model)
  streaming, memory = _feeds(source, mesh)
  # From the middle of an epoch into the third.
  chunks = list(loop.chunks(7, 50, 3, 5))
  _assert_same(
    streaming.train(chunks, seed=1, length=3),
    memory.train(chunks, seed=1, length=3),
  )
  _assert_same(streaming.evaluate(), memory.evaluate())


def test_batches_do_not_depend_on_the_number_of_devices(split):
  source = feature_cache.StoredSplit(split)
  found = []
  for data, model in ((1, 1), (2, 4), (8, 1)):
    _, memory = _feeds(source, _mesh(data, model))
    batch = next(memory.train([loop.Chunk(11, 2)], seed=0, length=2))
    found.append(jax.device_get(batch))
  for other in found[1:]:
    jax.tree.map(np.testing.assert_array_equal, other, found[0])


def test_what_is_loaded_is_what_the_host_decodes(split):
  """int8 and scales on the devices, then bit for bit the host's tokens."""
  source = feature_cache.StoredSplit(split)
  _, memory = _feeds(source, _mesh(8))
  chunk = loop.Chunk(0, 1)
  batch = next(memory.train([chunk], seed=0, length=1))
  assert batch[schema.STUDENT_TOKENS].dtype == np.int8
  indices = np.asarray(batch[schema.INDEX][0])
  wanted = split.read(indices)

  @jax.jit
  def in_float32(batch):
    # As a model in float32 reads them: the bfloat16 rounding has to stay.
    tokens = dequantise(batch)[schema.STUDENT_TOKENS]
    return tokens.astype(jnp.float32)

  first = {key: value[0] for key, value in batch.items()}
  tokens = dequantise(first)[schema.STUDENT_TOKENS]
  assert tokens.dtype == ml_dtypes.bfloat16
  host = wanted[schema.STUDENT_TOKENS].astype(np.float32)
  assert len(np.unique(host)) > 100
  np.testing.assert_array_equal(tokens.astype(np.float32), host)
  np.testing.assert_array_equal(in_float32(first), host)
  decoded = dequantise(first)
  assert set(decoded) == set(wanted) | {schema.EXAMPLE_MASK}


def test_a_gather_asks_no_other_device():
  mesh = _mesh(8)
  example = {"x": jax.ShapeDtypeStruct((512, 64), np.int8)}
  layout = resident.Layout(mesh, 5000, 64, example)
  rows = jax.ShapeDtypeStruct(
    (4, 64),
    np.int32,
    sharding=sharding.named_sharding(mesh, None, "batch"),
  )
  compiled = resident.compile_gather(layout).lower(layout.shapes(), rows)
  text = compiled.compile().as_text()
  assert "all-" not in text and "collective" not in text
  assert layout.device_bytes() == 79 * 8 * 512 * 64


def _run(workdir, mesh=None, source=None, **train):
  settings = {"steps": 6, "eval_every": 0, "checkpoint_every": 0}
  config = training.config(
    workdir,
    "no_distillation",
    schedule="constant",
    **settings | train,
  )
  source = source or batches.MemorySource(EXAMPLES)
  state, complete = training.run(config, source, mesh)
  assert complete
  return training.fingerprint(state), _losses(workdir)


def _losses(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return {r["step"]: r["loss/total"] for r in rows if "loss/total" in r}


def test_runs_are_equal_streamed_resident_and_resumed(tmp_path):
  """Every bit of every loss and of the state."""
  streamed = _run(tmp_path / "streamed", resident="off")
  memory = batches.MemorySource(EXAMPLES)
  loaded = _run(tmp_path / "resident", source=memory, resident="on")
  assert list(streamed[1]) == [1, 2, 3, 4, 5, 6]
  assert loaded == streamed
  # Loaded, and never read again.
  assert sum(len(r) for r in memory.reads if len(r) > 1) == 152
  for setting in ("on", "off"):
    _run(tmp_path / setting, resident=setting, steps=3)
    assert _run(tmp_path / setting, resident=setting) == streamed


@pytest.mark.slow
def test_steps_in_one_go_are_the_same_steps(tmp_path):
  settings = {"log_every": 5, "resident": "on"}
  one = _run(tmp_path / "one", steps_per_dispatch=1, **settings)
  four = _run(tmp_path / "four", steps_per_dispatch=4, **settings)
  assert list(one[1]) == [5, 6]
  assert four == one


def test_chunks_end_where_something_is_due():
  def stops(*args):
    return [chunk.first + chunk.count for chunk in loop.chunks(*args)]

  assert stops(0, 10, 4, 0) == [4, 8, 10]
  assert stops(3, 21, 8, 5, 0, 6) == [5, 6, 10, 12, 15, 18, 20, 21]
  assert stops(10, 10, 4, 5) == []


def test_where_features_go_and_why():
  mesh = _mesh(8)
  example = {"x": jax.ShapeDtypeStruct((1024, 1024), np.int8)}

  def layout(examples, size=64):
    return resident.Layout(mesh, examples, size, example)

  few, many = layout(1024), layout(1024 * 8)  # 128 MiB and 1 GiB a device
  assert feeds.decide("auto", 0.0, few, "train")
  assert not feeds.decide("auto", 0.0, many, "train")
  assert feeds.decide("auto", 1.0, many, "train")
  assert not feeds.decide("off", 1.0, few, "train")
  with pytest.raises(InputError, match=r"1\.00 GiB on each of 8 .* 0\.50 GiB"):
    feeds.decide("on", 0.0, many, "train")
  odd = layout(1024, size=24 * 8 + 4)
  assert not feeds.decide("auto", 0.0, odd, "train")
  with pytest.raises(InputError, match=r"4 virtual shards .* 8 devices"):
    feeds.decide("on", 0.0, odd, "train")


def test_large_fields_lie_in_whole_tiles():
  def shape(shape, dtype):
    example = {"x": jax.ShapeDtypeStruct(shape, dtype)}
    return resident.Layout(_mesh(1), 32, 2, example).shapes()["x"].shape[2:]

  assert shape((577, 1024), np.int8) == (4640, 128)
  assert shape((4, 77, 512), jnp.bfloat16) == (1232, 128)
  assert shape((577,), np.float32) == (577,)
  assert shape((), np.int32) == ()


@pytest.mark.parametrize("one_by_one", [False, True])
def test_large_fields_come_back_as_they_were(one_by_one):
  """As TPUs gather and as others do."""
  mesh = _mesh(4)
  example = {
    "tokens": jax.ShapeDtypeStruct((9, 500), np.int8),
    "few": jax.ShapeDtypeStruct((3,), np.float32),
  }
  layout = resident.Layout(mesh, 130, 8, example)
  rng = np.random.default_rng(0)
  size = layout.num_rows * layout.num_shards
  fields = {
    key: rng.integers(-127, 128, (size, *x.shape)).astype(x.dtype)
    for key, x in example.items()
  }
  arrays = {
    key: jax.device_put(
      value.reshape(layout.num_rows, layout.num_shards, *value.shape[1:]),
      layout.sharding,
    )
    for key, value in resident.pack(layout, fields).items()
  }
  rows = rng.integers(0, layout.num_rows, (2, 8)).astype(np.int32)
  found = resident.compile_gather(layout, one_by_one)(arrays, rows)
  wanted = rows * layout.num_shards + np.arange(8)
  for key, value in fields.items():
    np.testing.assert_array_equal(found[key], value[wanted])


def test_a_damaged_record_stops_the_load():
  class Broken(batches.MemorySource):
    def read(self, indices):
      if 100 in indices:
        raise InputError("example 100 is broken", "mend it")
      return super().read(indices)

  source = Broken(EXAMPLES)
  layout = resident.layout(source, 8, _mesh(1))
  with (
    pytest.raises(InputError, match="example 100 is broken"),
    loading(source, layout, "load") as ready,
  ):
    ready()
