"""The evaluator for other people's predictions, against a slow one."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.errors import InputError
from mipd_jax.metrics import scores, swig, swig_files
from mipd_jax.models import outputs as out
from tests import batches

REPO = pathlib.Path(__file__).resolve().parent.parent
FRAMES = REPO.parent / "shared" / "data" / "swig" / "test_frames.json"


def _box(rng):
  low = rng.uniform(0, 200, 2)
  return [*low.tolist(), *(low + rng.uniform(5, 200, 2)).tolist()]


def _predict(rng, annotations) -> dict:
  """Predictions that are right about half of the time."""
  frames = {record["verb"]: record for record in annotations.values()}
  names = sorted(frames)
  predictions = {}
  for name, record in annotations.items():
    others = rng.choice(len(names), 6, replace=False)
    verbs = [names[i] for i in others if names[i] != record["verb"]][:5]
    rank = rng.integers(0, 9)
    if rank < 5:
      verbs[rank] = record["verb"]
    filled = {}
    for verb in {*verbs, record["verb"]}:
      source = record if verb == record["verb"] else frames[verb]
      filled[verb] = _fill(rng, source)
    predictions[name] = {"verbs": verbs, "frames": filled}
  return predictions


def _fill(rng, record) -> dict:
  frame = {}
  for role in record["frames"][0]:
    said = record["frames"][rng.integers(0, 3)][role]
    true = record["bb"][role]
    box = _box(rng)
    if true != [-1] * 4 and rng.random() < 0.6:
      box = (np.array(true) + rng.uniform(-30, 30, 4)).tolist()
    frame[role] = {
      "noun": said if rng.random() < 0.8 else "n00000000",
      "box": None if rng.random() < 0.4 else box,
    }
  return frame


def _slow(predictions, annotations) -> dict:
  """The protocol once more, image by image and role by role."""

  def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
      return 0.0
    one = (a[2] - a[0]) * (a[3] - a[1])
    other = (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (one + other - width * height)

  def image(prediction, record):
    row, verb = {}, record["verb"]
    row["verb_top1"] = float(prediction["verbs"][0] == verb)
    row["verb_top5"] = float(verb in prediction["verbs"][:5])
    values, groundings = [], []
    for role in record["frames"][0]:
      guess = prediction["frames"][verb][role]
      right = guess["noun"] in [frame[role] for frame in record["frames"]]
      true = record["bb"][role]
      if true == [-1, -1, -1, -1]:
        grounded = guess["box"] is None
      else:
        grounded = guess["box"] is not None and iou(guess["box"], true) >= 0.5
      values.append(right)
      groundings.append(right and grounded)
    for when, counts in (
      ("top1", row["verb_top1"]),
      ("top5", row["verb_top5"]),
      ("gt", 1.0),
    ):
      row[f"value_{when}"] = counts * sum(values) / len(values)
      row[f"value_all_{when}"] = counts * all(values)
      row[f"grnd_{when}"] = counts * sum(groundings) / len(groundings)
      row[f"grnd_all_{when}"] = counts * all(groundings)
    return row

  by_verb = {}
  for name, record in annotations.items():
    row = image(predictions[name], record)
    by_verb.setdefault(record["verb"], []).append(row)
  rows = [row for group in by_verb.values() for row in group]
  names = list(rows[0])
  means = [
    {n: sum(row[n] for row in group) / len(group) for n in names}
    for group in by_verb.values()
  ]
  found = {n: 100 * sum(row[n] for row in rows) / len(rows) for n in names}
  found["macro"] = {
    n: 100 * sum(m[n] for m in means) / len(means) for n in names
  }
  found["images"] = len(rows)
  return found


def _assert_same(found, expected):
  assert found.keys() == expected.keys()
  assert found["images"] == expected["images"]
  for part, other in ((found, expected), (found["macro"], expected["macro"])):
    assert set(swig.SCORES) <= part.keys()
    for name in swig.SCORES:
      assert part[name] == pytest.approx(other[name], abs=1e-9), name


def _small() -> dict:
  """24 made-up images of seven verbs."""
  rng = np.random.default_rng(0)
  frames = {"v1": ("a", "b", "c"), "v2": ("a",), "v3": ("x", "y")}
  frames |= {f"w{i}": ("a",) for i in range(4)}
  annotations = {}
  for i in range(24):
    verb = sorted(frames)[i % len(frames)]
    nouns = ["", "n01", "n02", "n03"]
    annotations[f"{verb}_{i}.jpg"] = {
      "verb": verb,
      "height": 400,
      "width": 400,
      "bb": {
        role: _box(rng) if rng.random() < 0.6 else [-1, -1, -1, -1]
        for role in frames[verb]
      },
      "frames": [
        {role: nouns[rng.integers(0, 4)] for role in frames[verb]}
        for _ in range(3)
      ],
    }
  return annotations


def _files(folder, predictions, annotations) -> list[str]:
  arguments = []
  for what, content in (
    ("predictions", predictions),
    ("annotations", annotations),
  ):
    path = folder / f"{what}.json"
    path.write_text(json.dumps(content))
    arguments.append(f"--{what}={path}")
  return arguments


@pytest.mark.skipif(not FRAMES.exists(), reason="no ../shared/data/swig")
def test_on_real_frames(tmp_path, capsys):
  """12,885 annotated test images; boxes and predictions are made up."""
  rng = np.random.default_rng(1)
  annotations = json.loads(FRAMES.read_text())
  for record in annotations.values():
    record["bb"] = {
      role: _box(rng) if rng.random() < 0.6 else [-1, -1, -1, -1]
      for role in record["frames"][0]
    }
  predictions = _predict(rng, annotations)
  assert swig.main(_files(tmp_path, predictions, annotations)) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  _assert_same(found, _slow(predictions, annotations))
  assert 20 < found["grnd_gt"] < 80


def test_on_made_up_images(tmp_path, capsys):
  annotations = _small()
  predictions = _predict(np.random.default_rng(2), annotations)
  assert swig.main(_files(tmp_path, predictions, annotations)) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  _assert_same(found, _slow(predictions, annotations))
  assert found["macro"]["value_gt"] != pytest.approx(found["value_gt"])


def test_needs_neither_jax_nor_tensorflow(tmp_path):
  annotations = _small()
  predictions = _predict(np.random.default_rng(2), annotations)
  code = (
    "import sys; from mipd_jax.metrics import swig; "
    f"status = swig.main({_files(tmp_path, predictions, annotations)!r}); "
    "heavy = {'jax', 'tensorflow', 'flax', 'torch'} & set(sys.modules); "
    "sys.exit(status or bool(heavy) * 9)"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False)
  assert done.returncode == 0


def test_agrees_with_the_scores_of_training():
  """The same predictions, as arrays of the contract and as files."""
  batch = batches.batch(32, seed=4)
  # Canvas and image are one here: a square of one pixel a share.
  rng = np.random.default_rng(5)
  outputs = {
    out.VERB_SCORES: rng.normal(size=(32, batches.SIZES.num_verbs)),
    out.NOUN_SCORES: rng.normal(size=(32, 6, batches.SIZES.num_nouns)),
    out.BOX: np.where(
      rng.random((32, 6, 1)) < 0.7, batch[schema.BOXES], 0.4
    ).astype(np.float32),
    out.BOX_CONFIDENCE: rng.normal(size=(32, 6)),
  }
  # Right nouns here and there, or nothing would ever be grounded.
  for row, role in np.argwhere(rng.random((32, 6)) < 0.7):
    outputs[out.NOUN_SCORES][row, role, batch[schema.NOUNS][row, role, 0]] = 9
  ours = np.asarray(scores.example_scores(outputs, batch)).mean(axis=0) * 100
  found = swig.score(swig_files.flatten(*_as_files(batch, outputs)))
  assert swig.SCORES == scores.ALL_SCORES
  np.testing.assert_allclose([found[n] for n in swig.SCORES], ours, atol=1e-4)
  assert found["grnd_gt"] > 5


def _as_files(batch, outputs) -> tuple[dict, dict]:
  """(predictions, annotations) as the readers give them."""
  predictions, annotations = {}, {}
  for i, verb in enumerate(batch[schema.VERB]):
    order = np.argsort(-outputs[out.VERB_SCORES][i], kind="stable")
    roles = np.flatnonzero(batch[schema.ROLE_MASK][i])
    names = tuple(f"r{role}" for role in roles)
    there = batch[schema.BOX_MASK][i]
    corners = [_corners(box) for box in batch[schema.BOXES][i]]
    guesses = [_corners(box) for box in outputs[out.BOX][i]]
    frame = {
      f"r{role}": {
        "noun": f"n{outputs[out.NOUN_SCORES][i, role].argmax()}",
        "box": guesses[role]
        if outputs[out.BOX_CONFIDENCE][i, role] >= 0
        else None,
      }
      for role in roles
    }
    verbs = [f"v{v}" for v in order]
    annotations[f"{i}.jpg"] = swig_files.Annotation(
      f"v{verb}",
      names,
      tuple(
        frozenset(f"n{n}" for n in batch[schema.NOUNS][i, role])
        for role in roles
      ),
      tuple(corners[role] if there[role] else None for role in roles),
    )
    frames = {name: {} for name in verbs} | {f"v{verb}": frame}
    predictions[f"{i}.jpg"] = {"verbs": verbs, "frames": frames}
  return predictions, annotations


def _corners(box):
  x, y, w, h = map(float, box)
  return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def _break(predictions, annotations, how: str) -> None:
  name = "v1_7.jpg"
  prediction, record = predictions[name], annotations[name]
  frame = prediction["frames"]["v1"]
  if how == "image":
    del predictions[name]
  elif how == "verbs":
    prediction["verbs"] = prediction["verbs"][:4]
  elif how == "twice":
    prediction["verbs"][0] = prediction["verbs"][1]
  elif how == "frame":
    del prediction["frames"]["v1"]
  elif how == "role":
    del frame["b"]
  elif how == "extra":
    frame["z"] = {"noun": "", "box": None}
  elif how == "noun":
    frame["b"]["noun"] = None
  elif how == "box":
    frame["b"]["box"] = [1, 2, 3]
  elif how == "nan":
    frame["b"]["box"] = [1, 2, float("nan"), 3]
  elif how == "truth":
    record["bb"]["b"] = [1, "2", 3, 4]
  elif how == "bb":
    record["bb"]["z"] = [1, 2, 3, 4]
  elif how == "true verb":
    del record["verb"]
  elif how == "annotators":
    record["frames"] = []


@pytest.mark.parametrize(
  ("how", "told"),
  [
    ("image", "have no prediction: v1_7.jpg"),
    ("verbs", "v1_7.jpg: 'verbs' is not a list of at least 5"),
    ("twice", "v1_7.jpg: 'verbs' is not"),
    ("frame", "v1_7.jpg: no frame for the true verb 'v1'"),
    ("role", "v1_7.jpg: the frame of 'v1' lacks the role 'b'"),
    ("extra", "v1_7.jpg: the frame of 'v1' has the role 'z'"),
    ("noun", "v1_7.jpg: role 'b' of 'v1' is {'noun': None"),
    ("box", "v1_7.jpg: role 'b' of 'v1' has the box [1, 2, 3]"),
    ("nan", "v1_7.jpg: role 'b' of 'v1' has the box [1, 2, nan, 3]"),
    ("truth", "v1_7.jpg: role 'b' has the box [1, '2', 3, 4]"),
    ("bb", "v1_7.jpg: 'bb' has the role 'z'"),
    ("true verb", "v1_7.jpg has no 'verb'"),
    ("annotators", "v1_7.jpg: 'frames' is not"),
  ],
)
def test_bad_input_is_named(how, told, tmp_path, capsys):
  annotations = _small()
  predictions = _predict(np.random.default_rng(3), annotations)
  _break(predictions, annotations, how)
  assert swig.main(_files(tmp_path, predictions, annotations)) == 2
  caught = capsys.readouterr()
  assert caught.out == ""
  assert caught.err.startswith("error: ")
  assert told in caught.err
  assert "Remedy: " in caught.err


def test_files_that_are_no_json(tmp_path, capsys):
  good, cut = tmp_path / "good.json", tmp_path / "cut.json"
  good.write_text(json.dumps(_small()))
  cut.write_text('{"a.jpg": ')
  for predictions, annotations in ((cut, good), (good, tmp_path / "none.json")):
    status = swig.main(
      [f"--predictions={predictions}", f"--annotations={annotations}"]
    )
    assert status == 2
  assert "cut.json is cut off" in capsys.readouterr().err
  with pytest.raises(InputError, match="holds a list"):
    cut.write_text("[]")
    swig_files.read_predictions(cut)


def test_empty_boxes_overlap_nothing():
  """A box without area, or with its corners swapped, is never right."""
  true = np.array([[0, 0, 10, 10], [5, 5, 5, 5], [0, 0, 10, 10.0]])
  guess = np.array([[10, 10, 0, 0], [5, 5, 5, 5], [0, 0, 10, 5.0]])
  found = swig._right_boxes(guess, true)
  np.testing.assert_array_equal(found, [False, False, True])
