"""The evaluator for other people's predictions, against a slow one."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline import boxes, schema
from input_pipeline.io.errors import InputError
from mipd_jax.metrics import scores, swig, swig_files, swig_scores
from mipd_jax.models import outputs as out
from tests.fixtures import batches

REPO = pathlib.Path(__file__).resolve().parents[2]
SWIG = REPO.parent / "shared" / "data" / "swig"
FRAMES, SAMPLES = SWIG / "test_frames.json", SWIG / "samples_with_boxes.json"


def _box(rng, size=(400, 400)):
  """Within an image of that height and width, in fractions of pixels."""
  low = rng.uniform(0, 0.5, 2) * size[::-1]
  high = low + rng.uniform(0.02, 0.5, 2) * size[::-1]
  if rng.random() < 0.4:  # up to the edges
    high = np.array(size[::-1], float)
  return [*low.tolist(), *high.tolist()]


def _predict(rng, annotations) -> dict:
  """Predictions that are right about half of the time."""
  frames = {record["verb"]: record for record in annotations.values()}
  names = sorted(frames)
  predictions = {}
  for name, record in annotations.items():
    verbs = [names[i] for i in rng.permutation(len(names))]
    if len(names) > 5:
      verbs = [verb for verb in verbs if verb != record["verb"]][:5]
      rank = rng.integers(0, 9)
      if rank < 5:
        verbs[rank] = record["verb"]
    filled = {}
    for verb in dict.fromkeys([*verbs, record["verb"]]):
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
      # Often beyond the image, on any side.
      moved = np.array(true) + rng.uniform(-40, 40, 4)
      moved[2:] += rng.choice([0, 150])
      box = np.sort(moved.reshape(2, 2), axis=0).reshape(4).tolist()
    frame[role] = {
      "noun": said if rng.random() < 0.8 else "n00000000",
      "box": None if rng.random() < 0.4 else box,
    }
  return frame


def _iou(a, b, more=0.0):
  """Of two corner boxes; `more` is added to every width and height."""
  width = min(a[2], b[2]) - max(a[0], b[0]) + more
  height = min(a[3], b[3]) - max(a[1], b[1]) + more
  shared = max(width, 0) * max(height, 0)
  one = (a[2] - a[0] + more) * (a[3] - a[1] + more)
  other = (b[2] - b[0] + more) * (b[3] - b[1] + more)
  return shared / max(one + other - shared, 1e-4)


def _overlaps(guess, true, record, variant):
  """Whether a predicted box is right where there is an annotated one."""
  if variant == "allenai":
    return _iou([max(x, 0) for x in guess], true, 1) > 0.5
  ends = (record["width"], record["height"]) * 2
  cut = [min(max(x, 0), end) for x, end in zip(guess, ends, strict=True)]
  return _iou(cut, true) >= 0.5


def _slow(predictions, annotations, variant="coformer") -> dict:
  """The published protocols once more: image by image, role by role."""

  def frame(prediction, record):
    """Right nouns and right groundings of the true verb's roles."""
    values, groundings = [], []
    for role in record["frames"][0]:
      guess = prediction["frames"][record["verb"]][role]
      noun = "" if guess["noun"] == "blank" else guess["noun"]
      right = noun in [said[role] for said in record["frames"]]
      none = guess["box"] in (None, [-1, -1, -1, -1])
      if record["bb"][role][0] == -1:
        grounded = none
      else:
        true = record["bb"][role]
        grounded = not none and _overlaps(guess["box"], true, record, variant)
      values.append(right)
      groundings.append(right and grounded)
    return values, groundings

  def image(prediction, record):
    row, verb = {}, record["verb"]
    row["verb_top1"] = float(prediction["verbs"][0] == verb)
    row["verb_top5"] = float(verb in prediction["verbs"][:5])
    values, groundings = frame(prediction, record)
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
  macro = {n: 100 * sum(m[n] for m in means) / len(means) for n in names}
  if variant == "allenai":
    found |= {n: macro[n] for n in names if not n.startswith("verb")}
  return found | {"macro": macro, "images": len(rows), "variant": variant}


def _assert_same(found, expected):
  assert found.keys() == expected.keys()
  assert found["images"] == expected["images"]
  assert found["variant"] == expected["variant"]
  for part, other in ((found, expected), (found["macro"], expected["macro"])):
    assert set(swig_scores.NAMES) <= part.keys()
    for name in swig_scores.NAMES:
      assert part[name] == pytest.approx(other[name], abs=1e-6), name


def _small(count=24) -> dict:
  """Made-up images of seven verbs."""
  rng = np.random.default_rng(0)
  frames = {"v1": ("a", "b", "c"), "v2": ("a",), "v3": ("x", "y")}
  frames |= {f"w{i}": ("a",) for i in range(4)}
  annotations = {}
  for i in range(count):
    verb = sorted(frames)[i % len(frames)]
    nouns = ["", "n01", "n02", "n03"]
    annotations[f"{verb}_{i}.jpg"] = {
      "verb": verb,
      "height": 300 + 10 * i,
      "width": 640 - 20 * i,
      "bb": {
        role: _box(rng, (300 + 10 * i, 640 - 20 * i))
        if rng.random() < 0.6
        else [-1, -1, -1, -1]
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


def _run(folder, predictions, annotations, capsys, *options):
  """(JSON line, standard error) of the command on two files."""
  arguments = _files(folder, predictions, annotations)
  assert swig.main([*arguments, *options]) == 0
  caught = capsys.readouterr()
  return json.loads(caught.out.splitlines()[-1]), caught.err


def _sized(records, rng, drawn=True):
  """Real records with a size, and with drawn boxes where they have none."""
  for record in records.values():
    record.setdefault("height", int(rng.integers(200, 513)))
    record.setdefault("width", int(rng.integers(200, 513)))
    size = (record["height"], record["width"])
    if drawn:
      record["bb"] = {
        role: np.rint(_box(rng, size)).tolist()
        if rng.random() < 0.6
        else [-1, -1, -1, -1]
        for role in record["frames"][0]
      }
  return records


@pytest.mark.parametrize("variant", swig.VARIANTS)
@pytest.mark.parametrize("path", [FRAMES, SAMPLES], ids=lambda p: p.stem)
def test_on_real_frames(path, variant, tmp_path, capsys):
  """1,500 test images with drawn boxes, 3 complete records; any guesses."""
  if not path.exists():
    pytest.skip(f"no {path}")
  rng = np.random.default_rng(1)
  records = list(json.loads(path.read_text()).items())
  some = rng.permutation(len(records))[:1500]
  records = {name: record for name, record in (records[i] for i in some)}
  annotations = _sized(records, rng, drawn=path == FRAMES)
  predictions = _predict(rng, annotations)
  option = f"--variant={variant}"
  found, _ = _run(tmp_path, predictions, annotations, capsys, option)
  _assert_same(found, _slow(predictions, annotations, variant))
  assert 0 < found["grnd_gt"] < 80


@pytest.mark.parametrize("variant", swig.VARIANTS)
@pytest.mark.parametrize("seed", range(3))
def test_on_made_up_images(seed, variant, tmp_path, capsys):
  annotations = _small(30)
  predictions = _predict(np.random.default_rng(seed), annotations)
  option = f"--variant={variant}"
  found, _ = _run(tmp_path, predictions, annotations, capsys, option)
  _assert_same(found, _slow(predictions, annotations, variant))
  assert found["macro"]["value_gt"] != pytest.approx(
    _slow(predictions, annotations)["value_gt"]
  )


def test_the_variants_differ_as_published(tmp_path, capsys):
  """One image each of what they disagree on; and the default is CoFormer's."""
  square = {"v": [10, 10, 20, 20], "w": [50, 50, 100, 100], "x": [0, 0, 9, 9]}
  guess = {"v": [10, 10, 20, 15], "w": [50, 50, 150, 150], "x": [0, 0, 9, 4]}
  annotations, predictions = _plain_files(square, guess)
  right = {}
  for variant in (None, "coformer", "allenai"):
    for verb in square:
      one = {f"{verb}.jpg": annotations[f"{verb}.jpg"]}
      options = [f"--variant={variant}"] if variant else []
      found, _ = _run(tmp_path, predictions, one, capsys, *options)
      assert found["variant"] == variant or variant is None
      right[variant, verb] = found["grnd_gt"]
  # Exactly half; beyond the image; half only if both ends are counted.
  wanted = {"v": (100, 100), "w": (100, 0), "x": (0, 0)}
  for verb, (coformer, allenai) in wanted.items():
    assert right[None, verb] == right["coformer", verb] == coformer, verb
    assert right["allenai", verb] == allenai, verb


def _plain_files(true, guess, size=(100, 100)) -> tuple[dict, dict]:
  """(annotations, predictions): an image and a role each, by verb."""
  annotations = {
    f"{verb}.jpg": {
      "verb": verb,
      "height": size[0],
      "width": size[1],
      "bb": {"agent": box},
      "frames": [{"agent": "n01"}] * 3,
    }
    for verb, box in true.items()
  }
  predictions = {
    f"{verb}.jpg": {
      "verbs": list(true),
      "frames": {name: {"agent": {"noun": "n01", "box": box}} for name in true},
    }
    for verb, box in guess.items()
  }
  return annotations, predictions


@pytest.mark.parametrize(
  ("true", "guess", "noun", "said", "right"),
  [
    ([-1, -1, -1, -1], None, "", "", 100),
    ([-1, -1, -1, -1], None, "blank", "", 100),
    ([-1, -1, -1, -1], None, "", "blank", 100),
    ([-1, -1, -1, -1], [-1, -1, -1, -1], "n01", "n01", 100),
    ([-1, 10, 50, 50], None, "n01", "n01", 100),
    (None, [-1.0, -1, -1, -1], "blank", "blank", 100),
    ([-1, 10, 50, 50], [0, 10, 50, 50], "n01", "n01", 0),
    ([10, 10, 50, 50], [-1, -1, -1, -1], "n01", "n01", 0),
    ([0, 0, 50, 50], [-1, 0, 50, 50], "n01", "n01", 100),
    ([10, 10, 50, 50], [10, 10, 50, 50], "blank", "n01", 0),
  ],
)
@pytest.mark.parametrize("variant", swig.VARIANTS)
def test_words_for_nothing(
  true, guess, noun, said, right, variant, tmp_path, capsys
):
  annotations, predictions = _plain_files({"v": true}, {"v": guess})
  annotations["v.jpg"]["frames"] = [{"agent": said}] * 3
  predictions["v.jpg"]["frames"]["v"]["agent"]["noun"] = noun
  option = f"--variant={variant}"
  found, _ = _run(tmp_path, predictions, annotations, capsys, option)
  assert found["grnd_gt"] == right


@pytest.mark.parametrize("count", [1, 3, 4])
def test_fewer_than_five_verbs_in_all(count, tmp_path, capsys):
  boxes = {f"v{i}": [1, 1, 9, 9] for i in range(count)}
  annotations, predictions = _plain_files(boxes, boxes)
  found, _ = _run(tmp_path, predictions, annotations, capsys)
  assert found["verb_top5"] == found["grnd_gt"] == 100
  assert found["verb_top1"] == pytest.approx(100 / count)
  if count > 1:  # then all of them have to be listed
    predictions["v0.jpg"]["verbs"] = ["v0"]
    assert swig.main(_files(tmp_path, predictions, annotations)) == 2
    assert f"at least {count} different" in capsys.readouterr().err


def test_groups(tmp_path, capsys):
  """Rows of verb groups equal those of files with only these verbs."""
  annotations = _small()
  predictions = _predict(np.random.default_rng(2), annotations)
  lists = {
    "version": 1,
    "seen": ["v1", "w0", "w1"],
    "rare": ["v2", "w2"],
    "unseen": ["v3", "w3", "never annotated"],
  }
  path = tmp_path / "ov_splits.json"
  path.write_text(json.dumps(lists))
  for variant in swig.VARIANTS:
    options = (f"--groups={path}", f"--variant={variant}")
    arguments = _files(tmp_path, predictions, annotations)
    assert swig.main([*arguments, *options]) == 0
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    for group in ("seen", "rare", "unseen", "all"):
      some = {
        name: record
        for name, record in annotations.items()
        if group == "all" or record["verb"] in lists[group]
      }
      wanted = _slow(predictions, some, variant)
      assert found[group]["images"] == len(some)
      for name in swig_scores.NAMES:
        assert found[group][name] == pytest.approx(wanted[name], abs=1e-6)
        macro = found["macro"][group][name]
        assert macro == pytest.approx(wanted["macro"][name], abs=1e-6)
      assert f"{group:10}{len(some):>10}" in out
      assert f"{found[group]['grnd_gt']:.2f}" in out
    a, b = (found[g]["verb_top1"] for g in ("seen", "unseen"))
    assert found["harmonic_mean"] == pytest.approx(2 * a * b / (a + b))
    assert f"verb top-1: {found['harmonic_mean']:.2f}" in out


@pytest.mark.parametrize(
  ("lists", "told"),
  [
    ({"seen": ["v1"], "rare": [], "unseen": []}, "'v2'"),
    ({"seen": ["v1"], "rare": []}, "unseen"),
    ({"seen": ["v1"], "rare": ["v1"], "unseen": []}, "'v1' in 'seen'"),
    ([], "expected an object"),
    ({"seen": [1], "rare": [], "unseen": []}, "seen[0]"),
  ],
)
def test_wrong_groups_are_named(lists, told, tmp_path, capsys):
  annotations = _small()
  predictions = _predict(np.random.default_rng(2), annotations)
  path = tmp_path / "ov_splits.json"
  path.write_text(json.dumps(lists))
  arguments = _files(tmp_path, predictions, annotations)
  assert swig.main([*arguments, f"--groups={path}"]) == 2
  caught = capsys.readouterr()
  assert told in caught.err and caught.out == ""


# Of `_plain_files`: what is wrong with predicted or annotated boxes, and what
# is said of it.
_BOX = [10, 20, 60, 80]
_OTHER_FORMS = {
  "shares": ([0.1, 0.2, 0.6, 0.8], _BOX, "lies in 0..1"),
  "thousandths": ([50, 50, 600, 800], _BOX, "leave their image"),
  "thousandths, named": ([100, 200, 600, 800], _BOX, "read as thousandths"),
  "outside": ([210, 220, 260, 280], _BOX, "lies outside its image"),
  "xywh": ([20, 10, 40, 20], [20, 10, 60, 30], "read as x, y, width, height"),
  "centres": ([35, 50, 50, 60], _BOX, "read as centre x"),
  "rows first, shares": (
    [0.2, 0.1, 0.8, 0.6],
    _BOX,
    "read as y1, x1, y2, x2, in",
  ),
  "rows first": ([60, 5, 90, 20], [5, 60, 20, 90], "read as y1, x1"),
  "no area": ([10, 20, 10, 80], _BOX, "1 of 1 predicted boxes have no area"),
  "true shares": (_BOX, [0.1, 0.2, 0.6, 0.8], "annotated boxes lies in 0..1"),
  "true outside": (_BOX, [210, 0, 220, 9], "annotated boxes lies outside"),
  "true leaves": (_BOX, [50, 50, 150, 150], "1 of 1 annotated boxes leave"),
  "true no area": (_BOX, [9, 9, 9, 50], "1 of 1 annotated boxes have no area"),
}


@pytest.mark.parametrize("case", _OTHER_FORMS)
def test_boxes_of_another_form_are_told(case, tmp_path, capsys):
  guess, true, told = _OTHER_FORMS[case]
  annotations, predictions = _plain_files({"v": true}, {"v": guess})
  _, error = _run(tmp_path, predictions, annotations, capsys)
  assert told in error and "note: " in error


# How boxes of 30 images are written, (box, height, width) ->, and what is said.
_RESIZED = {
  "percent": (lambda b, h, w: _by(b, 100 / w, 100 / h), "read as percent"),
  "within 224": (lambda b, h, w: _by(b, 224 / w, 224 / h), "224 x 224"),
  "beyond 800": (lambda b, h, w: _by(b, 800 / w, 800 / h), "800 x 800"),
  "longer side": (
    lambda b, h, w: _by(b, 900 / max(h, w), 900 / max(h, w)),
    "a longer side of about 900",
  ),
  "shorter side": (
    lambda b, h, w: _by(b, 256 / min(h, w), 256 / min(h, w)),
    "a shorter side of about 256",
  ),
  "half": (lambda b, h, w: _by(b, 0.5, 0.5), "about 0.5 times its size"),
  "square": (
    lambda b, h, w: _by(
      np.add(b, [max(h - w, 0) / 2, max(w - h, 0) / 2] * 2),
      384 / max(h, w),
      384 / max(h, w),
    ),
    "a square of about 384 x 384 with the image in its middle",
  ),
  "slightly more than shares": (
    lambda b, h, w: np.add(_by(b, 1 / w, 1 / h), [-0.01, 0, 0.01, 0]).tolist(),
    "every one of the 22 predicted boxes lies in 0..1",
  ),
  "mostly shares": (
    lambda b, h, w: _by(b, 1.1 / w, 1.1 / h),
    "13 of 22 predicted boxes lie in 0..1",
  ),
  "columns, rows": (lambda b, h, w: [b[0], b[2], b[1], b[3]], "x1, x2, y1, y2"),
  "lost": (lambda b, h, w: [3, 4, 30, 40], "upper left quarter"),
}


def _by(box, x, y):
  return (np.array(box) * [x, y, x, y]).tolist()


@pytest.mark.parametrize("case", _RESIZED)
def test_boxes_of_resized_images_are_told(case, tmp_path, capsys):
  write, told = _RESIZED[case]
  annotations = _small(30)
  predictions = _predict(np.random.default_rng(0), annotations)
  for name, record in annotations.items():
    height, width = record["height"], record["width"]
    for filler in predictions[name]["frames"].values():
      for role in filler.values():
        role["box"] = None
    for role, box in record["bb"].items():
      if box[0] >= 0:
        guess = write(box, height, width)
        if guess[2] >= guess[0] and guess[3] >= guess[1]:
          predictions[name]["frames"][record["verb"]][role]["box"] = guess
  _, error = _run(tmp_path, predictions, annotations, capsys)
  assert told in error


def test_zeros_for_no_box_are_not_shares(tmp_path, capsys):
  annotations, predictions = _plain_files(
    {"v": _BOX, "w": _BOX}, {"v": _BOX, "w": [0, 0, 0, 0]}
  )
  annotations["v.jpg"]["bb"]["agent"] = [0, 0, 0, 0]
  _, error = _run(tmp_path, predictions, annotations, capsys)
  assert "0..1" not in error
  assert "1 of 2 predicted boxes have no area" in error
  assert "1 of 2 annotated boxes have no area" in error


def test_exchanged_sides_are_told(tmp_path, capsys):
  annotations = _small()
  predictions = _predict(np.random.default_rng(0), annotations)
  for record in annotations.values():
    record["height"], record["width"] = record["width"], record["height"]
  _, error = _run(tmp_path, predictions, annotations, capsys)
  assert "height and width, exchanged" in error


# Predicted nouns as a function of the right one, and what is said of them.
_IDS = {"n01": "man", "n02": "dog", "n03": "cup", "": ""}
_OTHER_NOUNS = {
  "words": (_IDS.get, "no WordNet ids, such as"),
  "offsets": (lambda noun: noun[1:], "no WordNet ids, such as"),
  "capitals": (str.upper, "differ only in capitals, spaces"),
  "spaces": (lambda noun: f" {noun}", "differ only in capitals, spaces"),
  "none": (lambda noun: noun or "None", "are 'None', which is wrong"),
  "padding": (lambda noun: noun or "Pad", "are 'Pad', which is wrong"),
  "blank": (lambda noun: noun or "Blank", "'Blank' is 'blank' there"),
  "unknown": (lambda noun: "OOV", "'OOV' is 'oov' there"),
  "as they are": (str, ""),
}


@pytest.mark.parametrize("case", _OTHER_NOUNS)
def test_nouns_of_another_list_are_told(case, tmp_path, capsys):
  write, told = _OTHER_NOUNS[case]
  annotations = _small()
  predictions = _predict(np.random.default_rng(0), annotations)
  for name, record in annotations.items():
    for role, filler in predictions[name]["frames"][record["verb"]].items():
      filler["noun"] = write(record["frames"][0][role])
  _, error = _run(tmp_path, predictions, annotations, capsys)
  assert told in error and bool(told) == ("nouns" in error)


def test_words_where_ids_are_predicted(tmp_path, capsys):
  annotations = _small()
  predictions = _predict(np.random.default_rng(0), annotations)
  for record in annotations.values():
    record["frames"] = [
      {role: _IDS[noun] for role, noun in frame.items()}
      for frame in record["frames"]
    ]
  _, error = _run(tmp_path, predictions, annotations, capsys)
  assert "are WordNet ids, such as" in error and "have words" in error


@pytest.mark.parametrize(
  "form", ["images_512/{}.jpg", "{}", "{}.png", "D:\\x\\{}.JPG"]
)
def test_images_named_otherwise_are_told(form, tmp_path, capsys):
  annotations = _small()
  predictions = _predict(np.random.default_rng(0), annotations)
  other = {form.format(n[:-4]): found for n, found in predictions.items()}
  assert swig.main(_files(tmp_path, other, annotations)) == 2
  assert f"{next(iter(other))!r} is there" in capsys.readouterr().err


@pytest.mark.parametrize("box", [[10, 90, 50, 20], [60, 60, 30, 30]])
def test_flipped_corners_are_refused(box, tmp_path, capsys):
  good = {"v": _BOX}
  annotations, predictions = _plain_files(good, {"v": box})
  assert swig.main(_files(tmp_path, predictions, annotations)) == 2
  error = capsys.readouterr().err
  assert "image v.jpg: role 'agent' of 'v'" in error
  assert "1 of 1 boxes" in error and "width, height" in error
  annotations, predictions = _plain_files({"v": box}, good)
  assert swig.main(_files(tmp_path, predictions, annotations)) == 2
  assert "image v.jpg: role 'agent' has the box" in capsys.readouterr().err


def test_good_boxes_get_no_note(tmp_path, capsys):
  rng = np.random.default_rng(0)
  annotations = _small()
  predictions = _predict(rng, annotations)
  for name, record in annotations.items():
    for role, box in record["bb"].items():
      true = None if box[0] < 0 else box
      predictions[name]["frames"][record["verb"]][role]["box"] = true
  assert _run(tmp_path, predictions, annotations, capsys)[1] == ""


def test_without_sizes_boxes_are_cut_at_0_alone(tmp_path, capsys):
  boxes = {"v": [0, 0, 40, 40], "w": [50, 50, 100, 100]}
  guess = {"v": [-60, -60, 40, 40], "w": [50, 50, 150, 150]}
  annotations, predictions = _plain_files(boxes, guess)
  for record in annotations.values():
    del record["height"]
  found, error = _run(tmp_path, predictions, annotations, capsys)
  assert found["grnd_gt"] == 50
  assert "2 of 2 annotated images have no height and width" in error


@pytest.mark.parametrize("beside", [False, True])
def test_nouns_out_of_the_vocabulary(beside, tmp_path, capsys):
  """As published: a noun that train_classes.csv lacks is the class oov."""
  boxes = {"v": _BOX, "w": _BOX}
  annotations, predictions = _plain_files(boxes, boxes)
  annotations["w.jpg"]["frames"] = [{"agent": "n02"}] * 3
  for prediction in predictions.values():
    for frame in prediction["frames"].values():
      frame["agent"] = {"noun": "oov", "box": _BOX}
  found, error = _run(tmp_path, predictions, annotations, capsys)
  assert found["value_gt"] == 0 and "--classes=train_classes.csv" in error
  path = tmp_path / ("train_classes.csv" if beside else "mine.csv")
  path.write_text("blank,0\nn01,1\noov,2\nPad,3\n")
  options = [] if beside else [f"--classes={path}"]
  found, error = _run(tmp_path, predictions, annotations, capsys, *options)
  assert found["value_gt"] == 50
  assert ("'oov' is right where" in error) == beside


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path, capsys):
  annotations, predictions = _plain_files({"v": _BOX}, {"v": _BOX})
  arguments = _files(tmp_path, predictions, annotations)
  for argument in arguments:
    path = pathlib.Path(argument.split("=")[1])
    path.write_text(path.read_text(), encoding="utf-8-sig")
  assert swig.main(arguments) == 0
  assert '"grnd_gt": 100.0' in capsys.readouterr().out


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
  side = int(batch[schema.IMAGE_SIZE][0, 0])  # images are square
  rng = np.random.default_rng(5)
  outputs = {
    out.VERB_SCORES: rng.normal(size=(32, batches.SIZES.num_verbs)),
    out.NOUN_SCORES: rng.normal(size=(32, 6, batches.SIZES.num_nouns)),
    out.BOX: np.where(
      batch[schema.BOX_MASK][..., None] & (rng.random((32, 6, 1)) < 0.7),
      batch[schema.BOXES],
      0.4,
    ).astype(np.float32),
    out.BOX_CONFIDENCE: rng.normal(size=(32, 6)),
  }
  # Right nouns here and there, or nothing would ever be grounded.
  for row, role in np.argwhere(rng.random((32, 6)) < 0.7):
    outputs[out.NOUN_SCORES][row, role, batch[schema.NOUNS][row, role, 0]] = 9
  files = _as_files(batch, outputs, side)
  cut = scores.cut_to_image(outputs[out.BOX], batch[schema.IMAGE_SIZE])
  ours = scores.example_scores(outputs | {out.BOX: cut}, batch)
  ours = np.asarray(ours).mean(axis=0) * 100
  found = swig.score(swig_files.flatten(*files))
  np.testing.assert_allclose(
    [found[n] for n in swig_scores.NAMES], ours, atol=1e-4
  )
  assert found["grnd_gt"] > 5


def _as_files(batch, outputs, side) -> tuple[dict, dict]:
  """(predictions, annotations) as the readers give them."""
  predictions, annotations = {}, {}
  for i, verb in enumerate(batch[schema.VERB]):
    order = np.argsort(-outputs[out.VERB_SCORES][i], kind="stable")
    roles = np.flatnonzero(batch[schema.ROLE_MASK][i])
    names = tuple(f"r{role}" for role in roles)
    there = batch[schema.BOX_MASK][i]
    corners = [_corners(box, side) for box in batch[schema.BOXES][i]]
    guesses = [_corners(box, side) for box in outputs[out.BOX][i]]
    frame = {
      f"r{role}": {
        "noun": f"n{outputs[out.NOUN_SCORES][i, role, :-1].argmax()}",
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
      (side, side),
    )
    frames = {name: {} for name in verbs} | {f"v{verb}": frame}
    predictions[f"{i}.jpg"] = {"verbs": verbs, "frames": frames}
  return predictions, annotations


def _corners(box, side):
  x, y, w, h = (side * float(value) for value in box)
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
  elif how == "null frame":
    prediction["frames"]["other"] = None
  elif how == "frame list":
    prediction["frames"]["v1"] = [frame]
  elif how == "frames list":
    prediction["frames"] = [frame]
  elif how == "prediction":
    predictions[name] = "v1"
  elif how == "filler":
    frame["b"] = ["n01", None]
  elif how == "noun list":
    frame["b"]["noun"] = ["n01"]
  elif how == "noun lists":
    for said in record["frames"]:
      said["b"] = ["n01"]
  elif how == "null noun":
    record["frames"][1]["b"] = None
  elif how == "null annotator":
    record["frames"][1] = None
  elif how == "bb list":
    record["bb"] = [[1, 2, 3, 4]]
  elif how == "record":
    annotations[name] = [record]
  elif how == "verb":
    record["verb"] = ["v1"]
  elif how == "size":
    record["height"] = "300"
  elif how == "huge":
    frame["b"]["box"] = [0, 0, 10**400, 10**400]


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
    ("null frame", "v1_7.jpg: the frame of 'other' is None"),
    ("frame list", "v1_7.jpg: no frame for the true verb 'v1'"),
    ("frames list", "v1_7.jpg has no 'frames'"),
    ("prediction", "v1_7.jpg: 'verbs' is not"),
    ("filler", "v1_7.jpg: role 'b' of 'v1' is ['n01', None]"),
    ("noun list", "v1_7.jpg: role 'b' of 'v1' is {'noun': ['n01']"),
    ("noun lists", "v1_7.jpg: role 'b': annotator 1 gives the noun ['n01']"),
    ("null noun", "v1_7.jpg: role 'b': annotator 2 gives the noun None"),
    ("null annotator", "v1_7.jpg: 'frames' is not a list of objects"),
    ("bb list", "v1_7.jpg: 'bb' is a list"),
    ("record", "v1_7.jpg has no 'verb'"),
    ("verb", "v1_7.jpg has no 'verb'"),
    ("size", "v1_7.jpg: height and width are ('300', 500)"),
    ("huge", "v1_7.jpg: role 'b' of 'v1' has the box [0, 0, 1000"),
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
  found = boxes.right(guess, true)
  np.testing.assert_array_equal(found, [False, False, True])
