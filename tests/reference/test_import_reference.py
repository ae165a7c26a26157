"""The authors' checkpoints: vocabulary first, then strictly, then restored."""

import argparse
import contextlib
import dataclasses
import functools
import json
import pathlib
import pickle
import shutil
import sys
import types

import jax
import numpy as np
import pytest

from input_pipeline import feature_cache, schema
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout, vocabulary
from mipd_jax import import_reference, reference, stages, tasks
from mipd_jax.devices import sharding
from mipd_jax.models.mipd import Mipd
from mipd_jax.stages import prepare
from mipd_jax.training import programs
from mipd_jax.training import state as state_lib
from mipd_jax.training.checkpoints import Checkpoints
from tests import training
from tests.fixtures import batches, models, swig_fixture

SHARED = pathlib.Path(__file__).parents[3] / "shared/data/swig"
needs_shared = pytest.mark.skipif(
  not SHARED.exists(), reason="no ../shared/data/swig"
)


@pytest.fixture
def folder(tmp_path):
  """A SWiG folder with its index files."""
  return swig_fixture.write(tmp_path / "swig")


@functools.cache
def _model():
  """(module, losses, parameters) of preset `reference`, with its 8 heads."""
  config, losses = models.configs("reference", heads=reference.HEADS)
  model = Mipd(config, batches.SIZES)
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), batches.batch(), batches.banks()
  )["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )
  return model, losses, params


def _state() -> dict[str, np.ndarray]:
  return reference.state_dict_from_params(_model()[2])


def _words(verbs=12, roles=8, nouns=15) -> types.SimpleNamespace:
  """As many names as in `batches.SIZES` by default."""
  return types.SimpleNamespace(
    verbs=range(verbs), roles=range(roles), nouns=range(nouns)
  )


def _fake_torch(monkeypatch, content) -> None:
  """A torch whose `load` gives `content`, if asked the safe way."""

  def load(path, *, map_location, weights_only):
    assert weights_only is True
    return content

  module = types.ModuleType("torch")
  module.load = load
  module.serialization = types.SimpleNamespace(
    safe_globals=lambda kinds: contextlib.nullcontext()
  )
  monkeypatch.setitem(sys.modules, "torch", module)


def test_import_is_restored_as_evaluation_restores(tmp_path):
  """The same tree, bit by bit, through Orbax."""
  model, losses, params = _model()
  import_reference.write_checkpoint(_state(), tmp_path / "run")
  config = dataclasses.replace(
    training.config(tmp_path / "run", "reference"),
    model=model.config,
    loss=losses,
  )
  # Data of other teacher and text widths: evaluation does not care.
  data = batches.MemorySource()
  like = state_lib.student_shapes(
    model,
    programs.example_batch(training.StudentOnly(data)),
    batches.banks(),
    sharding.replicated(sharding.make_mesh(devices=jax.devices()[:1])),
  )
  checkpoints = Checkpoints(config.workdir, {"preset": "reference"})
  try:
    assert checkpoints.best_step() == 0
    assert checkpoints.latest_step() is None
    found = checkpoints.restore_best_params(like)
  finally:
    checkpoints.close()
  jax.tree.map(
    np.testing.assert_array_equal, found, {"student": params["student"]}
  )


def test_main_scores_an_imported_checkpoint(pipeline, tmp_path):
  """Trained with a teacher and texts of other widths than the cache has."""
  config = pipeline.config(
    tmp_path / "run", "debug,reference", {"model.heads": reference.HEADS}
  )
  prepared = prepare.open_prepared(config)
  model = tasks.of(config).model(prepared)
  source = prepared.cache.split("test", (feature_cache.STUDENT,))
  batch = programs.example_batch(source) | {
    schema.TEACHER_TOKENS: jax.ShapeDtypeStruct((1, 17, 20), np.float32),
    schema.RATIONALE_TOKENS: jax.ShapeDtypeStruct((1, 4, 7, 12), np.float32),
    schema.RATIONALE_MASK: jax.ShapeDtypeStruct((1, 4, 7), np.bool_),
  }
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), batch, dict(prepared.banks)
  )["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: 0.1 * rng.normal(size=x.shape).astype(np.float32), shapes
  )
  import_reference.write_checkpoint(
    reference.state_dict_from_params(params), tmp_path / "run"
  )
  stages.run(config, "eval")
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  assert results["step"] == 0 and results["preset"] == "reference"
  assert np.isfinite(results["models"]["student"]["all"]["value_gt"])
  assert (tmp_path / "run" / "sheet.png").exists()


def test_command_line(folder, tmp_path, monkeypatch, capsys):
  words = vocabulary.load(folder)
  names = {
    "verb_token_embed.weight": len(words.verbs),
    "role_token_embed.weight": len(words.roles),
    "noun_3_classifier.3.weight": len(words.nouns),
    "noun_3_classifier.3.bias": len(words.nouns),
  }
  state = _state()
  state |= {
    name: np.resize(state[name], (count, *state[name].shape[1:]))
    for name, count in names.items()
  }
  _fake_torch(monkeypatch, {"model": state, "epoch": 3})
  (tmp_path / "ckpt.pth").write_bytes(b"torch's business")
  arguments = [
    f"--checkpoint={tmp_path / 'ckpt.pth'}",
    f"--out={tmp_path / 'run'}",
    f"--swig={folder}",
  ]
  assert import_reference.main(arguments) == 2
  assert "another order than the SWiG release" in capsys.readouterr().err
  assert not (tmp_path / "run").exists()
  arguments.append("--own_vocabulary")
  assert import_reference.main(arguments) == 0
  assert "--mode=eval" in capsys.readouterr().out
  assert import_reference.main(arguments) == 2
  assert "has checkpoints already" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["verbs", "roles", "nouns"])
def test_index_files_are_needed(folder, what):
  name = import_reference._INDEX_FILES[what]
  (layout.jsons_folder(folder) / name).unlink()
  with pytest.raises(InputError, match=f"{name} is missing"):
    import_reference.check_order(folder, released=False)


@needs_shared
def test_released_order_is_known():
  """Where the release's files are beside the repo, they are the ones."""
  words = import_reference.check_order(SHARED)
  assert (len(words.verbs), len(words.roles), len(words.nouns)) == (
    504,
    190,
    9929,
  )


@needs_shared
def test_another_order_is_refused(tmp_path):
  copy = tmp_path / "swig"
  copy.mkdir()
  for name in (
    layout.SPACE_FILE,
    layout.VERB_FILE,
    layout.ROLE_FILE,
    layout.NOUN_FILE,
  ):
    shutil.copyfile(SHARED / name, copy / name)
  verbs = (copy / layout.VERB_FILE).read_text().split()
  verbs[7], verbs[8] = verbs[8], verbs[7]
  (copy / layout.VERB_FILE).write_text("\n".join(verbs))
  with pytest.raises(InputError, match="504 verbs in another order"):
    import_reference.check_order(copy)


def test_counts_are_compared():
  import_reference.check_counts(_words(), _state())
  with pytest.raises(InputError) as caught:
    import_reference.check_counts(_words(verbs=13, nouns=16), _state())
  assert "12 verbs (verb_token_embed.weight), 13 in" in str(caught.value)
  assert "15 nouns" in str(caught.value)
  assert "roles" not in str(caught.value)


def test_wrong_parameters_write_nothing(tmp_path):
  state = _state()
  del state["proj_cls"]
  with pytest.raises(InputError, match="missing: proj_cls"):
    import_reference.write_checkpoint(state, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_without_torch_the_message_says_so(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  path = tmp_path / "ckpt.pth"
  path.write_bytes(b"")
  with pytest.raises(InputError, match="needs PyTorch"):
    import_reference.read_checkpoint(path)
  with pytest.raises(InputError, match="is no file"):
    import_reference.read_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize("content", [[1, 2], {"model": {"a": "text"}}])
def test_something_else_than_tensors(content, tmp_path, monkeypatch):
  _fake_torch(monkeypatch, content)
  path = tmp_path / "ckpt.pth"
  path.write_bytes(b"")
  with pytest.raises(InputError, match="holds no tensors by name"):
    import_reference.read_checkpoint(path)


class _Trap:
  """Says when a pickle is executed."""

  def __reduce__(self):
    return (print, ("executed",))


def test_with_real_torch(tmp_path, capsys):
  """Training scripts save more than the state; code is refused."""
  torch = pytest.importorskip("torch")
  state = _state()
  path = tmp_path / "ckpt.pth"
  tensors = {f"module.{name}": torch.tensor(x) for name, x in state.items()}
  arguments = argparse.Namespace(lr=1e-4)
  torch.save({"model": tensors, "epoch": 9, "args": arguments}, path)
  found = import_reference.read_checkpoint(path)
  assert found.keys() == tensors.keys()
  np.testing.assert_array_equal(found["module.proj"], state["proj"])

  torch.save({"model": tensors, "args": _Trap()}, path)
  with pytest.raises(InputError, match="without executing") as caught:
    import_reference.read_checkpoint(path)
  assert "Remedy: " in str(caught.value)
  path.write_bytes(pickle.dumps(_Trap()))
  with pytest.raises(InputError, match="without executing"):
    import_reference.read_checkpoint(path)
  path.write_bytes(path.read_bytes()[:10])
  with pytest.raises(InputError, match="without executing"):
    import_reference.read_checkpoint(path)
  assert "executed" not in capsys.readouterr().out
