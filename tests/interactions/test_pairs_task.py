"""One loop, one cache, one set of stages for both tasks."""

import ast
import dataclasses
import inspect
import json
import operator
import pathlib
import re
import types

import jax
import pytest

from configs import hico_det, ov_swig, synthetic
from input_pipeline import schema
from input_pipeline.io.errors import InputError
from input_pipeline.small_world.interactions.config import PairWorldConfig
from mipd_jax import config as config_lib
from mipd_jax import tasks
from mipd_jax.inference import workdir
from mipd_jax.losses import situations
from mipd_jax.losses.config import LossConfig
from mipd_jax.losses.objective import Objective
from mipd_jax.models import outputs as out
from mipd_jax.models.mipd import Mipd
from mipd_jax.models.pairs import PairMipd
from mipd_jax.tasks import config as task_config
from mipd_jax.tasks import worlds
from mipd_jax.tasks.config import InteractionsConfig
from mipd_jax.tasks.interactions import Interactions
from mipd_jax.tasks.situations import Situations
from mipd_jax.tasks.task import Task
from tests.fixtures import batches, models, pair_batches

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The configuration refuses fields that do not go together.
MAY_ASK = ("mipd_jax/config.py",)
NAMES = ("situations", "interactions", "hico_det", "ov_swig", "swig")
TEACHER_TERMS = tuple(
  f"loss.{name}"
  for name in Objective(situations.TERMS, LossConfig()).teacher_terms
)


def questions(source: str) -> list[int]:
  """Lines that ask which task or dataset a run has."""
  found = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Match):
      subject = [node.subject]
    elif isinstance(node, ast.Compare):
      subject = [node.left, *node.comparators]
    else:
      continue
    asked = {x.attr for x in subject if isinstance(x, ast.Attribute)}
    asked |= {x.id for x in subject if isinstance(x, ast.Name)}
    told = {x.value for x in subject if isinstance(x, ast.Constant)}
    is_none = isinstance(node, ast.Compare) and told <= {None}
    if (asked & {"task", "dataset"} and not is_none) or told & set(NAMES):
      found.append(node.lineno)
  return found


def test_nobody_asks_which_dataset_it_is():
  """But the data and metric modules, and the tasks themselves."""
  wrong = []
  for path in sorted((ROOT / "mipd_jax").rglob("*.py")):
    name = str(path.relative_to(ROOT))
    if name.startswith("mipd_jax/metrics/") or name in MAY_ASK:
      continue
    wrong += [f"{name}:{line}" for line in questions(path.read_text("utf-8"))]
  assert not wrong


@pytest.mark.parametrize(
  ("source", "asks"),
  [
    ("if config.task == 'interactions':\n  pass", True),
    ("x = 1 if dataset != 'hico_det' else 2", True),
    ("if 'interactions' in name:\n  pass", True),
    ("match config.task:\n  case 'a':\n    pass", True),
    ("if dataset is None:\n  pass", False),
    ("if len(dataset) == 3:\n  pass", False),
  ],
)
def test_the_scan_sees_a_question(source, asks):
  assert bool(questions(source)) == asks


def test_both_tasks_answer_everything():
  wanted = {x for x in vars(Task) if not x.startswith("_")}
  wanted |= set(Task.__annotations__)
  for task in (Situations(None), Interactions(None)):
    assert wanted <= set(dir(task)), wanted - set(dir(task))


@pytest.mark.parametrize("task", [Situations, Interactions])
def test_tasks_are_asked_alike_and_hold_their_config(task):
  for name, asked in vars(Task).items():
    if inspect.isfunction(asked) and not name.startswith("_"):
      wanted = list(inspect.signature(asked).parameters)
      assert list(inspect.signature(getattr(task, name)).parameters) == wanted
      assert "config" not in wanted


def unpacked(values, **changes):
  values.update_from_flattened_dict(changes)
  return config_lib.unpack(values)


@pytest.mark.parametrize(
  "variant",
  [
    *("", "jrg", "no_distillation", "debug", "small_world"),
    *("small_world,no_distillation", "debug,no_distillation"),
  ],
)
def test_configs_name_the_task(variant):
  config = unpacked(hico_det.get_config(variant))
  assert isinstance(tasks.of(config), Interactions)
  assert config.to_dict()["interactions"]["split"] == "UV"
  words = set(variant.split(","))
  assert bool(config.world) == bool(words & {"small_world", "debug"})
  assert bool(config.teacher.language_model) == ("jrg" in words)
  assert config.quick_compile == ("debug" in words)
  assert config.model.teacher_branch == ("no_distillation" not in words)
  assert config.workdir.endswith(
    "-".join(["hico_det", *variant.split(",")]).strip("-")
  )


def test_the_small_world_has_no_language_model():
  with pytest.raises(InputError, match="no language model"):
    hico_det.get_config("small_world,jrg")


def test_situations_know_nothing_of_it():
  """Hashes of their runs are those from before there were two tasks."""
  for module in (ov_swig, synthetic):
    config = unpacked(module.get_config(""))
    assert isinstance(tasks.of(config), Situations)
    assert not {"task", "interactions"} & set(config.to_dict())
    assert config_lib.unpack(config.to_dict()) == config


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    ({"task": "situations"}, "interactions"),
    ({"task": "detection"}, "detection"),
    ({"interactions.slots": 0}, "slots"),
    ({"interactions.dropping": "image"}, "dropping"),
    ({"interactions.min_score": 1.5}, "min_score"),
    ({"interactions.detection_power": -1.0}, "detection_power"),
    (
      {"interactions.pair": 0.0, "interactions.focal_gamma": 2.0},
      "focal_gamma=2.0 does nothing with interactions.pair=0",
    ),
    ({"interactions.nms_threshold": 0.5}, "nothing with interactions.nms"),
    (
      {"interactions.split": "full", "interactions.dropping": "label"},
      "dropping='label' does nothing with interactions.split='full'",
    ),
    (
      {
        "interactions.train_detections": "",
        "interactions.test_detections": "",
        "interactions.min_score": 0.5,
      },
      "min_score=0.5 does nothing with annotated boxes",
    ),
    (
      {
        "model.teacher_branch": False,
        **dict.fromkeys(TEACHER_TERMS, 0.0),
        "model.gaze": False,
      },
      "model.gaze=False does nothing with model.teacher_branch",
    ),
    *(
      ({name: value}, rf"{name}=.* does nothing with task='interactions'")
      for name, value in (
        ("dataset.num_rare", 3),
        ("dataset.mirrored", True),
        ("teacher.jrg.definition_words", 3),
        ("model.noun_head", "text"),
        ("model.dropout.box", 0.5),
        ("loss.scene_distill_form", "l1"),
        ("loss.verb_smoothing", 0.2),
        ("loss.noun_sum", 0.0),
        ("loss.box", 1.0),
        ("eval.trained_bias", 1.0),
      )
    ),
  ],
)
def test_wrong_settings_are_refused(changes, told):
  with pytest.raises(InputError, match=told):
    unpacked(hico_det.get_config("debug"), **changes)


# A value of each field that is not the preset's; numbers are added to.
_OTHER = {
  "eyes": "tokens",
  "verb_names": "all",
  "scene_distill_form": "l1",
  "verb_kl_source": "clip",
  "verb_kl_names": "trained",
  "verb_kl_listed": 0.5,
  "verb_pooling": "cls",
  "role_queries": "embedding",
  "noun_head": "text",
  "teacher_pooling": "mean",
  "scene_heads": 2,
  "rationale_space": "frozen",
  "hidden": 64,
  "heads": 2,
  "teacher_branch": False,
}


def _changed(config, name):
  *parents, last = name.split(".")
  inner = operator.attrgetter(".".join(parents))(config) if parents else config
  value = getattr(inner, last)
  other = not value if isinstance(value, bool) else _OTHER.get(last)
  other = value + 0.25 if other is None and isinstance(value, float) else other
  other = value + 8 if other is None else other
  changed = dataclasses.replace(inner, **{last: other})
  if parents:
    changed = dataclasses.replace(config, **{parents[0]: changed})
  return changed


def _leaves(config, prefix=""):
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from _leaves(value, f"{prefix}{field.name}.")
    else:
      yield prefix + field.name


@pytest.mark.parametrize("task", task_config.TASKS)
def test_what_a_task_does_not_read_changes_nothing(task):
  """And every other field of model and loss changes the training step."""
  own = InteractionsConfig() if task == "interactions" else None
  fixture, module = (pair_batches, PairMipd) if own else (batches, Mipd)
  given = fixture.batch()
  asked = given[schema.PAIR_MASK if own else schema.BOX_MASK]
  given = batches.with_answers(given, asked, 9)
  data = (batches.with_instance_text(given, asked), fixture.banks())
  config, losses = models.configs("mipd")
  # The forms in which every field has an effect.
  config = dataclasses.replace(
    config,
    teacher_pooling="learned_query",
    eyes="adapter",
    eyes_width=8,
    box_nouns=not own,
    foretell=True,
  )
  losses = dataclasses.replace(losses, answers=0.5)
  key = jax.random.key(0)

  def outputs_of(config):
    model = module(config, fixture.SIZES)
    return lambda key, *data: model.init_with_output(
      {"params": key, "dropout": key}, *data, train=True
    )[0]

  outputs = dict(jax.eval_shape(outputs_of(config), key, *data))
  outputs[out.GAZE_POSITIVE] = outputs[out.GAZE_TARGET]  # of a frozen space

  def total(losses):
    return task_config.objective(
      types.SimpleNamespace(task=task, loss=losses, interactions=own)
    )

  def program(function, argument):
    text = str(jax.make_jaxpr(function)(argument, *data))
    return re.sub(r"0x[0-9a-f]+", "", text)

  idle = set()
  for part, whole, of, argument in (
    ("model", config, outputs_of, key),
    ("loss", losses, total, outputs),
  ):
    usual = program(of(whole), argument)
    idle |= {
      f"{part}.{name}"
      for name in _leaves(whole)
      if program(of(_changed(whole, name)), argument) == usual
    }
  told = task_config.not_read(task)
  # The opened layers themselves are given to the model.
  idle.remove("model.open_layers")
  assert idle == {x for x in told if x.startswith(("model.", "loss."))}


def test_preset_reference_has_no_pairs():
  config = unpacked(hico_det.get_config("reference"))
  with pytest.raises(InputError, match="teacher_pooling"):
    tasks.of(config).model(None)


@pytest.mark.parametrize("note", ["[", "[1]", '{"seed": 1}', "[" * 10**5])
def test_a_damaged_note_of_a_small_world(tmp_path, note):
  (tmp_path / "world.json").write_text(note)
  with pytest.raises(InputError, match=r"world\.json|another small world"):
    worlds.draw(tmp_path, PairWorldConfig.tiny(), None, "interactions.world")


def test_a_missing_folder_is_named(tmp_path):
  changes = {"dataset.folder": str(tmp_path)}
  config = unpacked(hico_det.get_config(""), **changes)
  with pytest.raises(InputError, match="no HICO-DET folder") as error:
    Interactions(config).check_folder()
  assert "hico_20160224_det" in str(error.value)


def test_the_predictor_refuses_a_student_of_pairs(tmp_path):
  config = unpacked(hico_det.get_config("debug"), workdir=str(tmp_path))
  (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
  with pytest.raises(InputError, match="student of interactions"):
    workdir.open_workdir(tmp_path, None)
