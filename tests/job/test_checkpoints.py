"""Checkpoints that can be trusted: digests, fallback, whose they are."""

import json
import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.devices import sharding
from mipd_jax.training import checkpoints as checkpoints_lib
from mipd_jax.training import digests
from mipd_jax.training.checkpoints import Checkpoints, read_best
from mipd_jax.training.state import TrainState

IDENTITY = {"seed": 1}


def _state(step: int) -> TrainState:
  rng = np.random.default_rng(step)
  params = {
    "student": {"kernel": jnp.asarray(rng.normal(size=(24, 16)), jnp.float32)},
    "teacher": {"bias": jnp.asarray(rng.normal(size=7), jnp.bfloat16)},
  }
  moments = {"nu": jnp.asarray(rng.random((24, 16)), jnp.float32)}
  return TrainState(jnp.asarray(step, jnp.int32), params, moments)


def _like(state):
  where = sharding.replicated(sharding.make_mesh(devices=jax.devices()[:1]))
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state
  )


def _student():
  return {"student": _like(_state(0).params)["student"]}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """Latest 2 and 4, best 2 (0.5) and 4 (0.7)."""
  work = tmp_path_factory.mktemp("run")
  writer = Checkpoints(work, IDENTITY, keep=2)
  for step, selection in ((2, 0.5), (4, 0.7)):
    writer.save(_state(step))
    writer.save_best(_state(step), selection)
  writer.wait()
  writer.close()
  return work


@pytest.fixture
def work(written, tmp_path):
  return pathlib.Path(shutil.copytree(written, tmp_path / "run"))


def _resume(work):
  reader = Checkpoints(work, IDENTITY, keep=2)
  try:
    return reader.restore_latest(_like(_state(0)))
  finally:
    reader.close()


def _same(found, wanted):
  return jax.tree.all(
    jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), found, wanted)
  )


def _damages(folder: pathlib.Path):
  """Flips, cuts, zeros and deletions of every file below a folder."""
  rng = np.random.default_rng(0)
  for path in sorted(p for p in folder.rglob("*") if p.is_file()):
    content = path.read_bytes()
    if content:
      for _ in range(3):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        yield path, bytes(damaged)
      yield path, content[: len(content) // 2]
      yield path, bytes(len(content))
    yield path, None


@pytest.mark.parametrize("place", ["checkpoints", "best"])
def test_no_damage_is_taken_for_a_checkpoint(place, work, caplog):
  """Reading gives what was written, or the step before with a message."""
  caplog.set_level(logging.WARNING)
  used = {2: 0, 4: 0}
  for path, content in _damages(work / place / "4"):
    before = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    caplog.clear()
    if place == "best":
      # Without the latest of the same step, which would do as well.
      found = read_best(work, _student())
      step, read, wanted = found.step, found.params, _state(found.step).params
      assert _same(read["student"], wanted["student"]), path
      said = f"step 4 in {work} is damaged" in caplog.text
      assert said == (step == 2 or "the same step in" in caplog.text)
    else:
      found = _resume(work)
      step = int(found.step)
      assert _same(found, _state(step)), path
      said = f"step 4 in {work} is damaged" in caplog.text
      assert said == (step == 2)
    used[step] += 1
    damaged = work / "damaged"
    if damaged.exists():
      shutil.rmtree(work / place / "4", ignore_errors=True)
      (damaged / f"{place}-4").rename(work / place / "4")
      shutil.rmtree(damaged)
    path.write_bytes(before)
  assert used[4] > 0 and (used[2] > 0 or place == "best"), used
  assert caplog.text is not None and _same(_resume(work), _state(4))


def test_arrays_of_another_checkpoint_are_noticed(work):
  """Whole files that are not the right ones: no checksum of theirs fails."""
  for place in ("checkpoints", "best"):
    shutil.rmtree(work / place / "4" / "default")
    shutil.copytree(
      work / place / "2" / "default", work / place / "4" / "default"
    )
  found = read_best(work, _student())
  assert (found.step, found.damaged) == (2, (4,))
  assert int(_resume(work).step) == 2
  assert sorted(p.name for p in (work / "damaged").iterdir()) == [
    "checkpoints-4"
  ]
  # The run goes on, and saves that step anew.
  writer = Checkpoints(work, IDENTITY)
  writer.save(_state(4))
  writer.wait()
  assert _same(writer.restore_latest(_like(_state(0))), _state(4))
  writer.close()


def test_a_best_step_that_is_damaged_may_be_among_the_latest(work, caplog):
  shutil.rmtree(work / "best" / "4" / "default")
  found = read_best(work, _student())
  assert (found.step, found.damaged) == (4, ())
  assert _same(found.params["student"], _state(4).params["student"])
  assert "the same step in checkpoints/" in caplog.text
  # But not one that only has the same number.
  shutil.rmtree(work / "checkpoints" / "4")
  shutil.copytree(work / "checkpoints" / "2", work / "checkpoints" / "4")
  assert read_best(work, _student()).step == 2


def test_only_damaged_ones_are_an_error_that_names_them(work):
  for place in ("checkpoints", "best"):
    for step in ("2", "4"):
      (work / place / step / "_CHECKPOINT_METADATA").write_text("{}")
  with pytest.raises(InputError, match=r"step 2: .*step 4: ") as error:
    _resume(work)
  assert str(work / "checkpoints") in error.value.problem
  # `best` was set aside by the run that wanted to continue.
  with pytest.raises(InputError, match="no checkpoint"):
    read_best(work, _student())
  assert (work / "damaged" / "best-4").is_dir()


def test_the_selection_score_is_protected_too(work):
  """A higher one would keep better checkpoints from being saved."""
  path = work / "best" / "2" / "metrics" / "metrics"
  path.write_text(path.read_text().replace("0.5", "0.9"))
  assert read_best(work, _student()).step == 4
  writer = Checkpoints(work, IDENTITY)
  assert writer.best_step() == 4
  writer.close()
  assert (work / "damaged" / "best-2").is_dir()


def test_checkpoints_of_nobody_knows_which_run_are_refused(work):
  (work / "run.json").unlink()
  for act in (
    lambda: Checkpoints(work, IDENTITY),
    lambda: checkpoints_lib.check_identity(work, IDENTITY),
  ):
    with pytest.raises(InputError, match=r"no run\.json") as error:
      act()
    assert "--workdir" in error.value.remedy
  assert not (work / "run.json").exists()
  shutil.rmtree(work / "checkpoints")  # `best` alone is somebody's too
  with pytest.raises(InputError, match=r"no run\.json"):
    Checkpoints(work, IDENTITY)


def test_best_checkpoints_alone_have_to_be_of_this_run(work):
  shutil.rmtree(work / "checkpoints")
  with pytest.raises(InputError, match="seed 1 -> 2"):
    Checkpoints(work, {"seed": 2})


def test_a_damaged_run_json_is_named(work):
  for text in ("", "[]", '{"seed": 1', "[" * 50000):
    (work / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json"):
      checkpoints_lib.check_identity(work, IDENTITY)


def test_best_checkpoint_survives_worse_ones(tmp_path):
  writer = Checkpoints(tmp_path, IDENTITY, keep=1)
  for step, selection in ((1, 30.0), (2, 50.0), (3, 40.0)):
    writer.save(_state(step))
    writer.save_best(_state(step), selection)
  writer.wait()
  assert writer.best_step() == 2 and writer.latest_step() == 3
  found = writer.restore_best_params(_student())
  assert set(found) == {"student"}
  assert _same(found["student"], _state(2).params["student"])
  writer.close()


def test_parameters_that_a_checkpoint_lacks_are_named(work):
  student = _student()["student"]
  for name, said in (
    ("extra", r"lacks params\.student\.extra"),
    ("kernel", ""),
  ):
    other = student | {name: _like(jnp.zeros((2, 2)))}
    with pytest.raises(InputError, match=f"does not fit.*{said}"):
      read_best(work, {"student": other})


ARRAYS = {
  "scalar": np.int32(5),
  "vector": np.arange(16, dtype=np.float32),
  "matrix": np.random.default_rng(1).normal(size=(16, 24)).astype(np.float32),
  "cube": np.random.default_rng(2).normal(size=(8, 3, 16)).astype(np.float32),
  "half": jnp.arange(48, dtype=jnp.bfloat16).reshape(8, 6),
  "bytes": np.random.default_rng(3).integers(0, 99, (8, 5)).astype(np.int8),
  "flags": np.arange(32).reshape(8, 4) % 3 == 0,
}


def test_a_digest_is_the_same_however_an_array_is_split():
  whole = digests.of_arrays(ARRAYS)
  assert len(set(whole)) == len(whole)
  mesh = sharding.make_mesh(4, 2, jax.devices()[:8])
  for axes in ((("data",), "model"), ("model",), ((),)):
    for name, x in ARRAYS.items():
      spec = jax.sharding.PartitionSpec(
        *(
          axis if np.shape(x)[i] % 8 == 0 else None
          for i, axis in enumerate(axes[: np.ndim(x)])
        )
      )
      placed = jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))
      assert digests.of_arrays([placed]) == digests.of_arrays([x]), name


@pytest.mark.parametrize("name", ARRAYS)
def test_every_flipped_bit_changes_a_digest(name):
  content = np.array(ARRAYS[name], ndmin=1)
  good = digests.of_arrays([content])
  raw = content.view(np.uint8).reshape(-1)
  for byte in range(0, raw.size, max(1, raw.size // 40)):
    for bit in range(8):
      if content.dtype == bool and bit:
        continue
      raw[byte] ^= 1 << bit
      assert digests.of_arrays([content]) != good
      raw[byte] ^= 1 << bit
  assert digests.of_arrays([content]) == good


def test_exchanged_values_and_rows_change_a_digest():
  x = ARRAYS["matrix"]
  good = digests.of_arrays([x])
  for changed in (x[::-1], x[:, ::-1], x.T.reshape(x.shape), np.roll(x, 1)):
    assert digests.of_arrays([changed]) != good
  y = x.copy()
  y[3, 4], y[10, 20] = x[10, 20], x[3, 4]
  assert digests.of_arrays([y]) != good


def test_a_record_protects_itself():
  found = digests.record({"a": np.zeros(3)}, selection=0.25)
  assert digests.problem(json.loads(json.dumps(found))) is None
  for changed in (
    found | {"selection": 0.5},
    found | {"arrays": {}},
    {k: v for k, v in found.items() if k != "sha256"},
    {},
    None,
    [],
  ):
    assert digests.problem(changed) is not None
