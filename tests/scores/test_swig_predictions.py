"""A run's predictions as a file: the evaluator finds the run's own table."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hico_det, synthetic
from input_pipeline import boxes, schema
from input_pipeline.geometry import Letterbox
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import Place
from input_pipeline.ov_swig import records as records_lib
from mipd_jax import config as config_lib
from mipd_jax import stages
from mipd_jax.devices import sharding
from mipd_jax.evaluation import predictions, situations
from mipd_jax.metrics import swig, swig_files, swig_scores
from mipd_jax.models import outputs as out
from tests.fakes import fakes
from tests.fixtures import pipeline_fixture

IMAGES = 70
UNKNOWN = "n9"  # a noun that is no class
GROUPS = {"seen": 4, "rare": 2, "unseen": 3}  # verbs of each


@pytest.fixture(scope="module")
def words():
  """Nine verbs, so that the true one is often not among the best five."""
  found = fakes.vocabulary()
  more = [f"{verb} again" for verb in found.verbs[:4]]

  def longer(values):
    return (*values, *values[:4])

  return dataclasses.replace(
    found,
    verbs=(*found.verbs, *more),
    verb_definitions=longer(found.verb_definitions),
    verb_abstracts=longer(found.verb_abstracts),
    frames=longer(found.frames),
  )


def _annotated_box(rng, height, width):
  """Whole pixels or not, some a little outside, some absent in any form."""
  if rng.random() < 0.3:
    return [None, [-1, -1, -1, -1], [-1, 5, 9, 9]][rng.integers(3)]
  ends = np.array([width, height, width, height])
  low, high = rng.uniform(0, 0.5, 2), rng.uniform(0.5, 1, 2)
  box = np.concatenate([low, high]) * ends
  if rng.random() < 0.5:
    box = np.rint(box)
  if rng.random() < 0.2:
    box[2:] = ends[2:] + 1.25
  if rng.random() < 0.1:
    box[:2] = -1.5
  return box.tolist()


@pytest.fixture(scope="module")
def records(words):
  """SWiG's JSON of a split."""
  rng = np.random.default_rng(0)
  nouns = ["", "blank", UNKNOWN, *words.nouns[1:-2]]
  found = {}
  for i in range(IMAGES):
    verb = words.verbs[rng.integers(len(words.verbs))]
    height, width = map(int, rng.integers(30, 700, 2))
    roles = words.frame_roles(words.verb_index[verb])
    found[f"{i}.jpg"] = {
      "verb": verb,
      "height": height,
      "width": width,
      "bb": {role: _annotated_box(rng, height, width) for role in roles},
      "frames": [
        {role: nouns[rng.integers(len(nouns))] for role in roles}
        for _ in range(3)
      ],
    }
  return found


class Source:
  """The split as batches have it: by the reader and the letterbox."""

  def __init__(self, records, words):
    self.num_examples = len(records)
    columns = {}
    for index, (name, entry) in enumerate(records.items()):
      place = Place(pathlib.Path("test.json"), pathlib.Path(name))
      record = records_lib.parse(entry, place, words, boxes_required=True)
      used = len(record.nouns)
      nouns = np.full((schema.MAX_ROLES, 3), len(words.nouns) - 1, np.int32)
      corners = np.full((schema.MAX_ROLES, 4), -1, np.float32)
      nouns[:used], corners[:used] = record.nouns, record.boxes
      box = Letterbox(record.height, record.width).boxes_to_canvas(corners)
      roles = words.frame_array[record.verb]
      row = {
        schema.INDEX: np.int32(index),
        schema.VERB: np.int32(record.verb),
        schema.ROLES: roles,
        schema.ROLE_MASK: roles >= 0,
        schema.NOUNS: nouns,
        schema.BOXES: box,
        schema.BOX_MASK: box[:, 2] >= 0,
        schema.IMAGE_SIZE: np.array([record.height, record.width], np.int32),
      }
      for key, value in row.items():
        columns.setdefault(key, []).append(value)
    self.columns = {key: np.stack(rows) for key, rows in columns.items()}

  def read(self, indices):
    return {key: x[indices] for key, x in self.columns.items()}


def _tables(source, words) -> dict[str, np.ndarray]:
  """What a student would say of each image for each verb's frame.

  Scores of verbs have ties. Boxes are half of the annotated one to the last
  bit of float32 and its neighbours, or anything, also outside the image.
  """
  rng = np.random.default_rng(1)
  verbs, shape = len(words.verbs), (IMAGES, len(words.verbs), schema.MAX_ROLES)
  columns = source.columns
  noun = rng.normal(size=(*shape, len(words.nouns))).astype(np.float32)
  noun[..., -1] += 1  # padding, which is no noun
  true = columns[schema.NOUNS][:, None, :, :1]
  right = rng.random((*shape, 1)) < 0.6
  true = np.broadcast_to(true, (*shape, 1))
  value = np.where(right, 9, np.take_along_axis(noun, true, axis=-1))
  np.put_along_axis(noun, true, value.astype(np.float32), axis=-1)
  sizes = columns[schema.IMAGE_SIZE][:, None, None]
  pixels = boxes.from_canvas(columns[schema.BOXES][:, None], sizes)
  half = pixels.copy()
  half[..., 3] = (half[..., 1] + half[..., 3]) / 2
  half = np.broadcast_to(half, (*shape, 4))
  moved = half + rng.uniform(-200, 200, half.shape)
  moved = np.concatenate(
    [
      np.minimum(moved[..., :2], moved[..., 2:]),
      np.maximum(moved[..., :2], moved[..., 2:]),
    ],
    axis=-1,
  )
  exact = rng.random((*shape, 1)) < 0.7
  canvas = boxes.to_canvas(np.where(exact, half, moved), sizes)
  canvas = np.nextafter(
    canvas, canvas + rng.integers(-1, 2, canvas.shape).astype(np.float32)
  )
  return {
    out.VERB_SCORES: rng.integers(0, 4, (IMAGES, verbs)).astype(np.float32),
    out.NOUN_SCORES: noun,
    out.BOX: canvas,
    out.BOX_CONFIDENCE: rng.normal(0.5, 1, shape).astype(np.float32),
  }


@pytest.fixture(scope="module", params=[1, 4], ids=["1 device", "4 devices"])
def run(request, records, words, tmp_path_factory):
  """A split evaluated, and its predictions written: (found, path, tables)."""
  source = Source(records, words)
  tables = _tables(source, words)
  mesh = sharding.make_mesh(devices=jax.devices()[: request.param])

  def predict(params, batch, banks):
    assert set(banks) == {"bank"} and not params
    image, verb = batch[schema.INDEX], batch[schema.VERB]
    found = {key: jnp.asarray(x)[image] for key, x in tables.items()}
    rows = jnp.arange(len(image))
    asked = (out.NOUN_SCORES, out.BOX, out.BOX_CONFIDENCE)
    return found | {key: found[key][rows, verb] for key in asked}

  step = situations.compile_eval_step(predict)
  banks = {"bank": np.zeros(1)}
  evaluator = situations.Evaluator(step, {}, banks, mesh, 16)
  found = situations.evaluate(evaluator, source)
  verbs = predictions.listed_verbs(found.verb_scores)
  listed = predictions.listed_frames(
    dataclasses.replace(
      evaluator, step=predictions.compile_frames_step(predict)
    ),
    source,
    verbs=verbs,
    frames=words.frame_array,
  )
  true = source.columns[schema.VERB]
  entries = predictions.entries(words, true, found.frames, verbs, listed)
  path = tmp_path_factory.mktemp("predictions") / "p.json"
  predictions.write(path, zip(records, entries, strict=True))
  return found, path, tables


@pytest.fixture
def files(tmp_path, records, words):
  """Arguments for the evaluator, without the predictions."""
  (tmp_path / "test.json").write_text(json.dumps(records))
  classes = [f"{name},{i}\n" for i, name in enumerate(words.nouns)]
  (tmp_path / "train_classes.csv").write_text("".join(classes))
  verbs = iter(words.verbs)
  lists = {
    group: [next(verbs) for _ in range(n)] for group, n in GROUPS.items()
  }
  (tmp_path / "ov_splits.json").write_text(json.dumps(lists))
  return [
    f"--annotations={tmp_path / 'test.json'}",
    f"--groups={tmp_path / 'ov_splits.json'}",
  ]


def test_the_file_gives_the_runs_own_table(run, files, capsys):
  """Every figure to float64's rounding, of every group."""
  found, path, _ = run
  assert swig.main([f"--predictions={path}", *files]) == 0
  scored = json.loads(capsys.readouterr().out.splitlines()[-1])
  numbers = np.repeat(np.arange(3), list(GROUPS.values()))
  table = swig_scores.summarise(found.totals, numbers)
  assert scored["harmonic_mean"] == pytest.approx(table["harmonic_mean"])
  for part, own in ((scored, table), (scored["macro"], table["macro"])):
    for group in (*schema.GROUPS, "all"):
      assert part[group]["images"] == own[group]["images"] > 0
      for name in swig_scores.NAMES:
        assert part[group][name] == pytest.approx(
          own[group][name], rel=1e-12, abs=1e-12
        ), (group, name)
  assert 5 < table["all"]["grnd_gt"] < table["all"]["value_gt"] < 95


def test_what_the_file_says(run, records, words):
  """Best five verbs, and each verb's own frame, also the true one's."""
  _, path, tables = run
  found = swig_files.read_predictions(path)
  assert list(found) == list(records)
  outside = 0
  for row, (name, record) in enumerate(records.items()):
    order = np.argsort(-tables[out.VERB_SCORES][row], kind="stable")[:5]
    entry = found[name]
    assert entry["verbs"] == [words.verbs[verb] for verb in order]
    assert set(entry["frames"]) == {*entry["verbs"], record["verb"]}
    outside += record["verb"] not in entry["verbs"]
    for verb, frame in entry["frames"].items():
      index = words.verb_index[verb]
      assert tuple(frame) == words.frame_roles(index)
      for slot, filler in enumerate(frame.values()):
        scores = tables[out.NOUN_SCORES][row, index, slot, :-1]
        noun = words.nouns[scores.argmax()]
        assert filler["noun"] == ("" if noun == "blank" else noun)
        confidence = tables[out.BOX_CONFIDENCE][row, index, slot]
        assert (filler["box"] is not None) == (confidence >= 0)
        if filler["box"]:
          x1, y1, x2, y2 = filler["box"]
          assert 0 <= x1 <= x2 <= record["width"]
          assert 0 <= y1 <= y2 <= record["height"]
  assert outside > 10


def test_a_finished_run_wrote_what_it_scored(pipeline, capsys):
  """`--mode=all --config.eval.predictions=FILE` as typed, then its table."""
  jsons = pipeline.folder / "world" / "SWiG_jsons"
  arguments = [
    f"--predictions={pipeline.folder / pipeline_fixture.PREDICTIONS}",
    f"--annotations={jsons / 'test.json'}",
    f"--groups={jsons / 'ov_splits.json'}",
  ]
  assert swig.main(arguments) == 0
  scored = json.loads(capsys.readouterr().out.splitlines()[-1])
  results = json.loads((pipeline.work / "results.json").read_text())
  own = results["models"]["student"]
  assert scored["harmonic_mean"] == own["harmonic_mean"]
  for group in (*schema.GROUPS, "all"):
    for name, value in own[group].items():
      assert scored[group][name] == pytest.approx(value, rel=1e-12), name
    for name, value in own["macro"][group].items():
      macro = scored["macro"][group][name]
      assert macro == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("mode", ["all", "eval"])
def test_a_file_that_cannot_be_written_is_told_at_once(mode, tmp_path):
  values = synthetic.get_config("debug")
  values.workdir = str(tmp_path / "work")
  values.eval.predictions = str(tmp_path)
  with pytest.raises(InputError, match=r"--config\.eval\.predictions names a"):
    stages.run(config_lib.unpack(values), mode)
  assert not (tmp_path / "work").exists()


def test_interactions_have_none():
  values = hico_det.get_config("debug")
  values.eval.predictions = "p.json"
  with pytest.raises(InputError, match=r"eval\.predictions='p\.json' does"):
    config_lib.unpack(values)


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path):
  path = tmp_path / "p.json"
  path.write_text("before")

  def entries():
    yield "a.jpg", predictions.entry([], {})
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    predictions.write(path, entries())
  assert path.read_text() == "before"
  assert list(tmp_path.iterdir()) == [path]
  predictions.write(path, [])
  assert json.loads(path.read_text()) == {}
