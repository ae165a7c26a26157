"""Config files, variants, overrides, and what is refused by name."""

import dataclasses
import importlib
import pathlib
import subprocess
import sys
import typing
from typing import Annotated

import pytest

from configs import common, synthetic
from input_pipeline.io.errors import InputError
from mipd_jax import config as config_lib
from mipd_jax import presets
from mipd_jax.devices import compilation
from mipd_jax.losses import situations
from mipd_jax.tasks import config as task_config

ROOT = pathlib.Path(__file__).resolve().parents[2]
_OTHERS = ("__init__", "common", "ablations", "grounded_study", "hico_det")
NAMES = sorted(
  path.stem
  for path in (ROOT / "configs").glob("*.py")
  # A study is no run: tests/ablations/test_ablate_plan.py unpacks what it
  # holds. The other task has variants of its own:
  # tests/interactions/test_pairs_task.py.
  if path.stem not in _OTHERS
)
VARIANTS = [
  "",
  "debug,jrg",
  *common.VARIANTS,
  *(f"debug,{p}" for p in presets.PRESETS),
]
TEACHER_TERMS = [term.name for term in situations.TERMS if term.target]


def test_all_config_files_are_here():
  assert NAMES == ["ov_swig", "synthetic"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_config_and_variant_unpacks(name, variant):
  module = importlib.import_module(f"configs.{name}")
  config = config_lib.unpack(module.get_config(variant))
  debug = "debug" in variant
  assert config.quick_compile == debug
  words = set(variant.split(","))
  assert config.preset == next(iter(words & set(presets.PRESETS)), "mipd")
  assert bool(config.teacher.language_model) == ("jrg" in words)
  assert config.teacher.cache.endswith("jrg") == ("jrg" in words)
  assert config.workdir.endswith(
    "-".join([name, *variant.split(",")]).strip("-")
  )
  model, loss = presets.preset_defaults(config.preset)
  assert config.loss == loss
  assert config.model.teacher_pooling == model.teacher_pooling
  assert bool(config.objective.teacher_terms) == config.model.teacher_branch
  steps = config.train.steps
  assert (0 < steps <= 12) if debug else steps != 12


def test_preset_reference_has_the_width_of_the_texts():
  """The L1 between hidden and text space needs one width (Task.model)."""
  from mipd_jax.teachers.foundation import FoundationConfig

  for variant, sizes in (
    ("reference", FoundationConfig()),
    ("debug,reference", FoundationConfig.debug()),
  ):
    config = config_lib.unpack(synthetic.get_config(variant))
    assert config.teacher.text_encoder.endswith("teacher_clip")
    assert config.model.hidden == sizes.teacher.joint_width


def _unpack(changes):
  values = synthetic.get_config("debug").to_dict()
  for path, value in changes.items():
    *parents, last = path.split(".")
    inner = values
    for name in parents:
      inner = inner[name]
    inner[last] = value
  return config_lib.unpack(values)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"train.learning_rat": 1},
      r"config\.train has no field 'learning_rat'.*mean 'learning_rate'",
    ),
    (
      {"dataset.world.num_sen": 1},
      r"config\.dataset\.world has no field 'num_sen'.*mean 'num_seen'",
    ),
    ({"optimiser": {}}, r"config has no field 'optimiser'.*the fields are"),
    (
      {"train.steps": "12"},
      r"config\.train\.steps='12' is a str, expected int",
    ),
    (
      {"train.steps": True},
      r"config\.train\.steps=True is a bool, expected int",
    ),
    (
      {"model.scene_prompt": 1},
      r"config\.model\.scene_prompt=1 is a int, expected bool",
    ),
    ({"train": 3}, r"config\.train is 3, expected fields"),
    (
      {"dataset.world.train_seen": 3},
      r"config\.dataset\.world\.train_seen=3 is a int, expected 2 values",
    ),
    (
      {"dataset.world.aspect": (0.8, "x")},
      r"config\.dataset\.world\.aspect\[1\]='x' is a str, expected float",
    ),
    (
      {"dataset.world.num_rare": 0},
      r"config\.dataset\.world\.num_rare=0 is out of range.*at least 1",
    ),
    ({"train.schedule": "cosin"}, r"train\.schedule='cosin' is not"),
    ({"loss.scene_distill_form": "l2"}, r"loss\.scene_distill_form='l2'"),
    ({"model.heads": 5}, r"model\.hidden=\d+ is not a multiple"),
    ({"teacher.foundation": "big"}, r"teacher\.foundation='big' is not"),
    ({"teacher.compute_dtype": "int8"}, r"teacher\.compute_dtype='int8'"),
    ({"teacher.verb_score": "max"}, r"teacher\.verb_score='max' is not"),
    ({"teacher.jrg.style": "fulll"}, r"no prompt style 'fulll'"),
    ({"teacher.jrg.attempts": 0}, r"attempts=0"),
    ({"loss.verb_kl_source": "cilp"}, r"loss\.verb_kl_source='cilp'"),
    ({"dataset.world": None}, r"teacher\.foundation is set but dataset\.world"),
    (
      {"model.teacher_branch": False},
      r"model\.teacher_branch is off but loss\.scene_distill is not 0",
    ),
  ],
)
def test_what_is_wrong_is_named_by_its_path(changes, message):
  with pytest.raises(InputError, match=f"(?s){message}") as error:
    _unpack(changes)
  assert str(error.value).count("Remedy:") == 1


@pytest.mark.parametrize(
  ("off", "field", "value", "on"),
  [
    ({"loss.scene_align": 0.0}, "loss.align_negative", False, {}),
    ({"loss.scene_align": 0.0}, "loss.align_temperature", 0.2, {}),
    ({"loss.scene_distill": 0.0}, "loss.scene_distill_form", "l1", {}),
    (
      {"loss.scene_distill": 0.0, "loss.gaze_distill": 0.0},
      "loss.detach_teacher",
      False,
      {"loss.scene_distill": 0.0},
    ),
    ({"loss.verb_kl": 0.0}, "loss.verb_kl_listed", 0.5, {}),
    ({"loss.verb_kl": 0.0}, "loss.verb_kl_prior", True, {}),
    ({"loss.verb_kl_names": "trained"}, "loss.verb_kl_listed", 0.5, {}),
    ({}, "teacher.jrg.temperature", 0.5, {"teacher.language_model": "any"}),
    (
      {"teacher.language_model": "any"},
      "teacher.served.requests",
      8,
      {"teacher.language_model": "http://host/v1"},
    ),
    ({}, "teacher.process_index", 1, {"teacher.process_count": 2}),
    ({"train.resident": "off"}, "train.resident_gib", 2.0, {}),
    (
      {
        "model.teacher_branch": False,
        **{f"loss.{x}": 0.0 for x in TEACHER_TERMS},
      },
      "train.shuffled",
      "rationales",
      {},
    ),
  ],
)
def test_a_field_that_another_switches_off_is_refused(off, field, value, on):
  with pytest.raises(InputError, match=f"{field}=.* does nothing with"):
    _unpack(off | {field: value})
  _unpack(on | {field: value})


# A field of each kind of range -> values outside it, and on its border inside.
RANGES = {
  "train.steps": ([-1, -(10**30), 2**31, 10**30], [0, 2**31 - 1]),
  "train.epochs": ([0, -3], [1]),
  "train.batch_size": ([0, -8], [1]),
  "train.keep": ([0], [1]),
  "train.log_every": ([-1], [0]),
  "train.learning_rate": ([0, -1e-4, float("nan"), float("inf")], [1e-9]),
  "train.weight_decay": ([-1e-4, float("nan"), 10**400], [0]),
  "train.clip_norm": ([0.0], [1e-9]),
  "eval.batch_size": ([0], [1]),
  "eval.sheet_examples": ([-1], [0]),
  "eval.trained_bias": ([float("nan"), float("-inf")], [-2.0]),
  "mesh.data": ([-2, 0], [-1, 1]),
  "mesh.model": ([0, -1], [1]),
  "seed": ([-1, 2**32], [0]),
  "teacher.batch_size": ([0], [1]),
  "teacher.process_count": ([-1], [0]),
  "teacher.served.timeout": ([0.0, -1.0], [0.5]),
  "teacher.jrg.judge": ([-0.1, 1.1], [0, 1]),
  "model.heads": ([0, -8], [1]),
  "model.dropout.student": ([-0.1, 1.0, 1.5], [0.0, 0.99]),
  "loss.verb_kl": ([-0.3], [0.0]),
  "loss.verb_kl_temperature": ([0.0, -1.0], [0.5]),
  "loss.verb_smoothing": ([1.0], [0.0]),
  "dataset.num_rare": ([-1], [0]),
  "dataset.world.jpeg_quality": ([0, 101], [1, 100]),
  "dataset.world.train_seen": ([(0, 5), (-1, 2)], [(1, 1)]),
  "dataset.world.blank": ([-0.1, 1.5], [0.0, 1.0]),
}


@pytest.mark.parametrize("field", RANGES)
def test_numbers_out_of_range_are_refused_by_their_flag(field):
  outside, inside = RANGES[field]
  for value in outside:
    with pytest.raises(InputError) as error:
      _unpack({field: value})
    said = str(error.value)
    assert field in said and said.count("Remedy:") == 1, said
  # Without one, jrg's fields do nothing.
  model = {"teacher.language_model": "any"} if ".jrg." in field else {}
  if ".served." in field:
    model = {"teacher.language_model": "http://host/v1"}
  for value in inside:
    _unpack(model | {field: value})


def test_every_number_of_the_configuration_states_its_range():
  """A new field without one would take a negative number in silence."""
  free = {"eval.trained_bias"}

  def numbers(cls, path=""):
    hints = typing.get_type_hints(cls, include_extras=True)
    for name, kind in hints.items():
      inner = [kind, *typing.get_args(kind)]
      for one in inner:
        if isinstance(one, type) and dataclasses.is_dataclass(one):
          yield from numbers(one, f"{path}{name}.")
        elif one in (int, float) and typing.get_origin(kind) is not Annotated:
          yield f"{path}{name}"

  found = {n for n in numbers(config_lib.Config) if "interactions." not in n}
  assert found == free


def test_missing_field_is_named():
  values = synthetic.get_config("debug").to_dict()
  del values["dataset"]["folder"]
  with pytest.raises(InputError, match=r"config\.dataset: .*'folder'"):
    config_lib.unpack(values)


def test_integers_are_good_floats_and_lists_good_tuples():
  config = _unpack(
    {"train.learning_rate": 1, "dataset.world.train_seen": [3, 4]}
  )
  assert config.train.learning_rate == 1.0
  assert isinstance(config.train.learning_rate, float)
  assert config.dataset.world.train_seen == (3, 4)


def test_hash_is_of_the_content():
  first = config_lib.unpack(synthetic.get_config("debug"))
  again = config_lib.unpack(first.to_dict())
  assert again == first and again.hash() == first.hash()
  assert _unpack({"seed": 1}).hash() != first.hash()
  # The same in every process: nothing of it depends on Python's hashes.
  code = (
    "from configs import synthetic; from mipd_jax import config; "
    "print(config.unpack(synthetic.get_config('debug')).hash())"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.strip() == first.hash(), done.stderr


def test_a_further_task_is_named_in_config_json(monkeypatch):
  """Without settings of its own, and no word of it in other runs' hashes."""
  terms = {**task_config.TERMS, "verbs": situations.TERMS}
  monkeypatch.setattr(task_config, "TERMS", terms)
  monkeypatch.setattr(task_config, "TASKS", tuple(terms))
  not_read = {**task_config._NOT_READ, "verbs": ()}
  monkeypatch.setattr(task_config, "_NOT_READ", not_read)
  config = _unpack({"task": "verbs"})
  assert config.to_dict()["task"] == "verbs"
  assert config_lib.unpack(config.to_dict()) == config
  assert not {"task", "interactions"} & set(_unpack({}).to_dict())


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config=configs/synthetic.py:debgu"], "did you mean 'debug'?"),
    (["--config=configs/synthetic.py:mipd,reference"], "names 2 presets"),
    (["--config=configs/nothing.py"], "configs/nothing.py"),
    ([], "Flag --config must have a value"),
    ([], "such as --config=configs/synthetic.py:debug"),
    (
      ["--config=configs/synthetic.py", "--mode=tran"],
      "all|prepare|train|eval",
    ),
    (["--config=configs/synthetic.py", "train"], "unexpected argument 'train'"),
    (
      ["--config=configs/synthetic.py", "--config.train.stepz=1"],
      'Did you mean "steps"',
    ),
    (
      ["--config=configs/synthetic.py", "--config.train.steps=few"],
      "--config.train.steps=few",
    ),
    (
      ["--config=configs/synthetic.py", "--config.train.dtype=int4"],
      "train.dtype='int4'",
    ),
  ],
)
def test_command_line_refuses_with_one_message(arguments, message):
  done = subprocess.run(
    [sys.executable, "-m", "mipd_jax.main", *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert message in done.stderr
  assert "Traceback" not in done.stderr
  assert done.stdout == "" and done.stderr.count("Remedy") <= 1


def test_help_names_configs_variants_and_flags():
  done = subprocess.run(
    [sys.executable, "-m", "mipd_jax.main", "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0 and done.stderr == ""
  words = (*NAMES, *presets.PRESETS, "debug", "jrg", "--workdir", "--mode")
  for word in words:
    assert word in done.stdout


def test_compilation_respects_what_is_set(tmp_path, monkeypatch):
  told = {}
  monkeypatch.setattr(compilation.jax.config, "update", told.__setitem__)
  for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"):
    monkeypatch.setenv(name, "--set=1")
  compilation.set_up(tmp_path, quick=False)
  assert compilation.os.environ["XLA_FLAGS"] == "--set=1"
  assert compilation.os.environ["JAX_COMPILATION_CACHE_DIR"] == "--set=1"
  assert "jax_compilation_cache_dir" not in told
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
  for _ in range(2):
    compilation.set_up(tmp_path, quick=True)
  assert compilation.os.environ["XLA_FLAGS"] == (
    "--set=1 --xla_backend_optimization_level=0"
  )
  found = compilation.os.environ["JAX_COMPILATION_CACHE_DIR"]
  assert found.startswith(str(tmp_path))
  # jax was imported before, and reads the environment only then.
  assert told["jax_compilation_cache_dir"] == found
