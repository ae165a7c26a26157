"""Rows of other runs, and the row with a bias off the trained verbs."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs import hico_det, synthetic
from input_pipeline.io.errors import InputError
from mipd_jax import config as config_lib
from mipd_jax.evaluation import situations
from mipd_jax.losses.banks import VERB_TRAINED
from mipd_jax.models import outputs as out
from mipd_jax.report import files
from mipd_jax.stages import evaluate


def _config(folders="", variant="debug", **changes):
  values = synthetic.get_config(variant)
  values.eval.beside = folders
  values.update_from_flattened_dict(changes)
  return config_lib.unpack(values)


def _run(folder, config, top1, split="test"):
  """What a finished run leaves of what is read here."""
  models = {
    "student": {"all": {"verb_top1": top1}},
    "student, trained verbs -1": {"all": {"verb_top1": top1 + 1}},
    "teacher zero-shot": {"all": {"verb_top1": 99.0}},
  }
  results = {"preset": config.preset, "split": split, "models": models}
  files.write_results(folder, results)
  (folder / "config.json").write_text(json.dumps(config.to_dict()))
  return str(folder)


def test_students_go_by_preset_or_by_folder(tmp_path):
  plain = _config(variant="debug,no_distillation")
  first = _run(tmp_path / "first", plain, 10.0)
  second = _run(tmp_path / "second", plain, 20.0)
  found = evaluate.read(_config(f"{first}, {second}"))
  assert {name: row["all"]["verb_top1"] for name, row in found.items()} == {
    "no_distillation": 10.0,
    "no_distillation, trained verbs -1": 11.0,
    "second": 20.0,
    "second, trained verbs -1": 21.0,
  }
  assert evaluate.read(_config()) == {}


def test_what_cannot_stand_in_one_table_is_refused(tmp_path):
  with pytest.raises(InputError, match=r"nowhere/results\.json"):
    evaluate.read(_config(str(tmp_path / "nowhere")))
  elsewhere = _config(**{"dataset.folder": "elsewhere"})
  other = _run(tmp_path / "other", elsewhere, 1.0)
  with pytest.raises(InputError, match="dataset of"):
    evaluate.read(_config(other))
  dev = _run(tmp_path / "dev", _config(), 1.0, split="dev")
  with pytest.raises(InputError, match=r"there is no .*dev/results\.json"):
    evaluate.read(_config(dev))
  assert evaluate.read(_config(dev, **{"eval.split": "dev"}))
  # Figures that somebody, or the disk, changed are nobody's.
  path = tmp_path / "dev" / "results-dev.json"
  path.write_text(path.read_text().replace("1.0", "7.0"))
  with pytest.raises(InputError, match="changed or damaged"):
    evaluate.read(_config(dev, **{"eval.split": "dev"}))


def test_bias_moves_the_trained_names_alone():
  scores = np.array([[3.0, 2.5, 1.0], [3.0, 0.5, 1.0]], np.float32)
  trained = np.array([True, False, False])
  predict = situations.less_trained(
    lambda params, batch, banks: {out.VERB_SCORES: jnp.asarray(scores)}, 1.0
  )
  found = predict(None, {}, {VERB_TRAINED: jnp.asarray(trained)})
  np.testing.assert_array_equal(
    found[out.VERB_SCORES], [[2.0, 2.5, 1.0], [2.0, 0.5, 1.0]]
  )


def test_a_bias_that_means_nothing_is_refused():
  with pytest.raises(InputError, match="trained_bias"):
    _config(**{"eval.trained_bias": float("nan")})
  values = hico_det.get_config("debug")
  values.eval.trained_bias = 1.0
  with pytest.raises(
    InputError, match=r"trained_bias=1\.0 does nothing with task"
  ):
    config_lib.unpack(values)
