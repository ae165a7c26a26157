"""`--mode=predict` and `Predictor.from_workdir` on the debug run."""

import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from input_pipeline import feature_cache
from input_pipeline.io import buckets
from input_pipeline.io.errors import InputError
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.inference import Predictor, workdir
from mipd_jax.stages import evaluate as eval_stage
from mipd_jax.stages import predict as predict_stage
from mipd_jax.stages import prepare
from mipd_jax.stages import train as train_stage
from tests.fakes import fake_bucket
from tests.fixtures import pipeline_fixture, predict_fixture

WORDS = """
verbs:
  juggling:
    roles: [agent, item, place]
    abstract: an AGENT juggles an ITEM at a PLACE
  yodeling:
nouns: [man, dog, Fußball, moonlight]
"""


def _predict(pipeline, *arguments):
  return pipeline_fixture.run(
    pipeline_fixture.command(
      pipeline.folder, pipeline.work, "--mode=predict", *arguments
    )
  )


def _lines(out: pathlib.Path) -> list[dict]:
  return [json.loads(x) for x in (out / "predictions.jsonl").open()]


def _assert_scorable(found: dict, lines: list[dict]) -> None:
  """Each image's five verbs and their frames, of which the first is shown."""
  shown = {pathlib.Path(x["image"]).name: x for x in lines if "verb" in x}
  assert found.keys() == shown.keys()
  for name, entry in found.items():
    assert entry["verbs"] == [v["verb"] for v in shown[name]["verbs"]]
    assert list(entry["frames"]) == entry["verbs"] and len(entry["verbs"]) == 5
    for role in shown[name]["roles"]:
      filler = entry["frames"][shown[name]["verb"]][role["role"]]
      noun = role["nouns"][0]["class_id"]
      assert filler["noun"] == ("" if noun == "blank" else noun)
      assert filler["box"] == role["box"]


def _test_images(pipeline):
  """The prepared run, and paths of its test images in the split's order."""
  config = pipeline.config(pipeline.work)
  prepared = prepare.open_prepared(config)
  names = prepared.cache.split("test", ()).names
  folder = pipeline.folder / "world" / "images_512"
  return config, prepared, [folder / name for name in names]


def _verb_scores(config, prepared):
  """Of every test image, as the evaluation has them: float32 [n, V]."""
  student = eval_stage.open_student(config, prepared)
  found = eval_lib.evaluate(
    student.evaluator(eval_lib.compile_eval_step(student.predict)),
    train_stage.stored(prepared, "test", (feature_cache.STUDENT,)),
  )
  return found.verb_scores


def test_the_command_on_a_folder_with_a_bad_image(pipeline, tmp_path):
  config, prepared, paths = _test_images(pipeline)
  images, out = tmp_path / "images", tmp_path / "out"
  images.mkdir()
  for i, path in enumerate(paths[:20]):
    shutil.copy(path, images / f"{i:02d}.jpg")
  (images / "05x.jpg").write_text("no picture")
  with Image.open(paths[0]) as upright:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.save(images / "20 Füße.png", exif=exif.tobytes())
    size = upright.size
  before = pipeline_fixture.snapshot(pipeline.folder)
  scored = tmp_path / "scored.json"
  done = _predict(
    pipeline,
    *(f"--images={images}", f"--out={out}"),
    f"--config.eval.predictions={scored}",
  )
  assert done.returncode == 2, done.stderr[-3000:]
  assert "1 of 22 images could not be read" in done.stderr
  assert "Traceback" not in done.stderr and "22/22 images" in done.stderr
  changed = {
    path
    for path, mark in pipeline_fixture.snapshot(pipeline.folder).items()
    if before.get(path) != mark
  }
  assert not changed

  lines = _lines(out)
  names = [pathlib.Path(line["image"]).name for line in lines]
  assert names == sorted(p.name for p in images.iterdir())
  _assert_scorable(json.loads(scored.read_text()), lines)
  bad = lines.pop(names.index("05x.jpg"))
  assert set(bad) == {"image", "error"} and "no image" in bad["error"]
  turned = lines.pop()
  assert (turned["width"], turned["height"]) == size
  assert turned["verb"] == lines[0]["verb"]
  for a, b in zip(turned["roles"], lines[0]["roles"], strict=True):
    if a["box"]:
      np.testing.assert_allclose(a["box"], b["box"], atol=0.5)
  logits = _verb_scores(config, prepared)
  index = prepared.dataset.vocabulary.verb_index
  for row, line in enumerate(lines):
    verbs = [index[guess["verb"]] for guess in line["verbs"]]
    assert len(set(verbs)) == 5 and line["verb"] == line["verbs"][0]["verb"]
    best = np.sort(logits[row])[::-1][:5]
    np.testing.assert_allclose(logits[row][verbs], best, atol=1e-4)

  pictures = sorted((out / "pictures").iterdir())
  assert len(pictures) == 21
  assert pictures[0].name == "00001-00.jpg"
  assert pictures[-1].name == "00022-20_F_e.jpg"
  with Image.open(pictures[0]) as picture:
    assert max(picture.size) >= 720
  page = (out / "index.html").read_text()
  assert all(f"pictures/{p.name}" in page for p in pictures)
  assert "05x.jpg" in page and "turned upright" in page


def test_words_of_a_file(pipeline, tmp_path):
  _, _, paths = _test_images(pipeline)
  words = tmp_path / "words.yaml"
  words.write_text(WORDS, encoding="utf-8")
  out = tmp_path / "out"
  request = predict_stage.Request(str(paths[3]), str(out), str(words))
  predict_stage.predict(pipeline.config(pipeline.work), request)
  (line,) = _lines(out)
  assert {v["verb"] for v in line["verbs"]} == {"juggling", "yodeling"}
  assert sum(v["probability"] for v in line["verbs"]) == pytest.approx(1)
  roles = [role["role"] for role in line["roles"]]
  known = {
    "juggling": ["agent", "item", "place"],
    "yodeling": ["agent", "place"],
  }
  assert roles == known[line["verb"]]
  for role in line["roles"]:
    nouns = {noun["noun"] for noun in role["nouns"]}
    assert nouns == {"man", "dog", "Fußball", "moonlight"}
  assert "words.yaml" in (out / "index.html").read_text()
  # Another look at the same place leaves the drawings out.
  shutil.copy(paths[0], tmp_path / "other.jpg")
  request = predict_stage.Request(f"{tmp_path}/**/*.jpg", str(out))
  assert predict_stage.find_images(request) == [str(tmp_path / "other.jpg")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Photographs, and an existing predictor."""
  predictor = predict_fixture.predictor()
  monkeypatch.setattr(
    predict_stage.Predictor, "from_workdir", lambda *_, **__: predictor
  )
  images = tmp_path / "images"
  images.mkdir()
  for i in range(2):
    predict_fixture.photograph(i).save(images / f"{i}.png")
  return images


def _request(folder, images=None):
  config = predict_fixture.opened().config
  request = predict_stage.Request(
    str(images or folder), str(folder.parent / "out")
  )
  predict_stage.predict(config, request)
  return folder.parent / "out"


@pytest.mark.parametrize(
  ("name", "escaped"),
  [
    (b"not \xff UTF-8.png", r"not \xff UTF-8.png"),
    (b"two\nlines.png", r"two\nlines.png"),
    (b"\x1b[31mred\t\r.png", r"\x1b[31mred\t\r.png"),
    (b"\"quoted\" 'too' <b>&.png", None),
    (b"-rf $(id) `id`.png", None),
    (b"[a]*?.png", None),
    (b"x" * 251 + b".png", None),
    ("nai\u0308ve \u202e.png".encode(), None),
  ],
)
def test_odd_file_names_lose_nothing(folder, name, escaped):
  path = os.path.join(os.fsencode(folder), name)
  shutil.copy(folder / "0.png", path)
  out = _request(folder)
  lines = _lines(out)
  assert path in [os.fsencode(line["image"]) for line in lines]
  assert len(lines) == 3 and all("verb" in line for line in lines)
  assert len(list((out / "pictures").iterdir())) == 3
  page = (out / "index.html").read_text(encoding="utf-8")
  assert page.count("<figure ") == 3 and "<b>&.png" not in page
  # The same name, of a file that is broken: named, and the rest goes on.
  with open(path, "wb") as file:
    file.write(b"\x89PNG\r\n\x1a\n broken")
  with pytest.raises(InputError, match="1 of 3 images") as error:
    _request(folder)
  text = str(error.value)
  assert all(c.isprintable() or c == "\n" for c in text)
  if escaped:
    assert escaped in text
  assert sum("verb" in line for line in _lines(out)) == 2


def test_files_that_are_no_images_are_passed_over(folder, caplog):
  (folder / "notes.txt").write_text("to do")
  (folder / "Thumbs.db").write_bytes(b"\0" * 99)
  out = _request(folder)  # no error
  said = [line.get("error") for line in _lines(out)]
  assert [bool(x) for x in said] == [False, False, True, True]
  assert "notes.txt" in caplog.text and "2 files are no images" in caplog.text
  assert "notes.txt" in (out / "index.html").read_text()
  for path in folder.glob("*.png"):
    path.unlink()
  with pytest.raises(InputError, match=r"2 of 2 .* none is left") as error:
    _request(folder)
  assert "notes.txt" in str(error.value)
  with pytest.raises(InputError, match="1 of 1"):
    _request(folder, folder / "notes.txt")


def test_one_broken_image_is_named_and_the_rest_predicted(folder):
  whole = (folder / "0.png").read_bytes()
  (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
  (folder / "named.jpg").write_text("no picture")
  with pytest.raises(InputError, match="2 of 4 images") as error:
    _request(folder)
  assert "cut.png" in str(error.value) and "named.jpg" in str(error.value)
  assert [("verb" in x) for x in _lines(folder.parent / "out")] == [
    *(True, True, False, False)
  ]


def test_pictures_of_the_former_run_are_replaced(folder):
  out = _request(folder)
  pictures = out / "pictures"
  assert {p.name for p in pictures.iterdir()} == {"00001-0.jpg", "00002-1.jpg"}
  mine = pictures / "00007-mine.jpg"
  mine.write_bytes(b"of the user")
  # What a killed run has left.
  (pictures / "00003-c.jpg").write_bytes(b"old")
  left = out / ".predictions.123.tmp.jsonl"
  left.write_text(3 * '{"image": "b/c.png", "verb": "x"}\n' + '{"image": "b/d')
  (folder / "0.png").rename(folder / "2.png")
  _request(folder)
  assert {p.name for p in pictures.iterdir()} == {
    *("00001-1.jpg", "00002-2.jpg", "00007-mine.jpg")
  }
  assert mine.read_bytes() == b"of the user" and not left.exists()
  # Brackets may be of a name.
  (odd := folder / "1 [a]").mkdir()
  (odd / "c.png").write_bytes((folder / "1.png").read_bytes())
  for given in (odd, odd / "*.png", odd / "c.png"):
    request = predict_stage.Request(str(given), str(out))
    assert predict_stage.find_images(request) == [str(odd / "c.png")]
  # Its own results are no images, where both folders are one.
  request = predict_stage.Request(str(out), str(out))
  with pytest.raises(InputError, match="names no file"):
    predict_stage.find_images(request)


@pytest.mark.parametrize(
  "where",
  [
    "https://example.org/a.jpg",
    "http://[::1]/a.jpg",
    "s3://b/a.jpg",
    "gs://b/a.jpg",
    "hf://b/a.jpg",
    "file:///a.jpg",
    "data://a",
  ],
)
def test_images_elsewhere_are_to_be_copied(folder, where):
  predictor = predict_fixture.predictor()
  for given in (where, [where]):
    with pytest.raises(InputError, match="copy the image to this machine"):
      predictor.predict(given)
  (inline,) = predictor.predict_each(["data:image/png;base64," + "A" * 999])
  assert "it is a URL" in inline.reason and len(inline.reason) < 300
  (failure,) = predictor.predict_each([where])
  assert failure.reason == "it is a URL, not a file of this machine"
  with pytest.raises(InputError, match="copy the images to this machine"):
    _request(folder, where)


@pytest.mark.parametrize("out", ["file", "file/x", "dangling", "/proc/x"])
def test_results_that_cannot_be_kept_are_told_first(folder, out, monkeypatch):
  def never(*_, **__):
    raise AssertionError("the model was loaded")

  monkeypatch.setattr(predict_stage.Predictor, "from_workdir", never)
  (folder.parent / "file").write_text("x")
  (folder.parent / "dangling").symlink_to("absent")
  monkeypatch.setenv("HOME", str(folder.parent))
  # No shell expands the ~ of --out=~/results.
  for place in (str(folder.parent / out), os.path.join("~", out)):
    request = predict_stage.Request(str(folder), place)
    with pytest.raises(InputError, match=f"--out=/.*{out.strip('/')}"):
      predict_stage.predict(predict_fixture.opened().config, request)


def test_wrong_requests_are_told_before_the_model_is_loaded(
  tmp_path, monkeypatch
):
  def never(*_, **__):
    raise AssertionError("the model was loaded")

  monkeypatch.setattr(predict_stage.Predictor, "from_workdir", never)
  (tmp_path / "a.png").write_bytes(b"")
  words = tmp_path / "words.yaml"
  words.write_text("nouns: []\n")
  out = str(tmp_path / "out")
  for request, said in (
    ((f"{tmp_path}/*.jpg", out), "names no file"),
    (("gs://bucket/*.jpg", out), "is in a bucket"),
    ((str(tmp_path / "a.png"), out, str(words)), "'nouns' is empty"),
  ):
    with pytest.raises(InputError, match=said):
      predict_stage.predict(None, predict_stage.Request(*request))
  assert not pathlib.Path(out).exists()


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["--mode=predict", "--out=o"], "--mode=predict needs --images"),
    (["--mode=predict", "--images=i"], "--mode=predict needs --out"),
    (["--mode=eval", "--images=i"], "--mode=eval does not take --images"),
  ],
)
def test_flags_that_belong_together(arguments, said):
  done = pipeline_fixture.run(
    [
      *(sys.executable, "-m", "mipd_jax.main"),
      *("--config=configs/synthetic.py:debug", *arguments),
    ]
  )
  assert done.returncode == 2
  assert said in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def copied(pipeline, tmp_path):
  """A copy of the work directory that may be spoilt."""
  work = tmp_path / "work"
  shutil.copytree(pipeline.work, work)
  return work


def _refused(work, said, remedy):
  with pytest.raises(InputError, match=said) as error:
    Predictor.from_workdir(work)
  assert remedy in error.value.remedy


def _edit(path: pathlib.Path, change) -> None:
  values = json.loads(path.read_text())
  change(values)
  path.write_text(json.dumps(values))


@pytest.mark.parametrize(
  ("name", "content", "said"),
  [
    ("config.json", b"", "cut off"),
    ("config.json", b"[]", "expected an object"),
    ("config.json", b"\xff", "not UTF-8"),
    ("config.json", b"[" * 9999, "nested too deeply"),
    ("config.json", b'{"naem": "x"}', "config has no field 'naem'"),
    ("config.json", b'{"train": 3}', "train is 3"),
    ("config.json", b'{"train": {"steps": "many"}}', r"train\.steps"),
    ("run.json", b"", "cut off"),
    ("run.json", b"3", "expected an object"),
    ("run.json", b"\xef\xbb\xbf[]", "expected an object"),
  ],
)
def test_files_of_another_shape_are_named(
  tmp_path, monkeypatch, name, content, said
):
  (tmp_path / "best").mkdir()
  (tmp_path / name).write_bytes(content)
  if name == "run.json":
    config = predict_fixture.opened().config
    monkeypatch.setattr(workdir, "_config", lambda *_: config)
  with pytest.raises(InputError, match=said) as error:
    Predictor.from_workdir(tmp_path)
  assert str(error.value).startswith(str(tmp_path / name))


def test_a_folder_that_is_no_work_directory(tmp_path):
  _refused(tmp_path, "has no config.json", "train first")
  _refused(tmp_path / "absent", "has no config.json", "train first")
  assert not (tmp_path / "absent").exists()


def test_a_work_directory_without_a_checkpoint(copied):
  shutil.rmtree(copied / "best")
  _refused(copied, "has no checkpoint", "train first")
  (copied / "best").mkdir()
  _refused(copied, "has no checkpoint", "train first")


def test_a_checkpoint_of_another_cache(copied):
  _edit(copied / "run.json", lambda run: run.update(cache="0" * 64))
  _refused(copied, "trained on another cache .* another vocabulary", "anew")


def test_a_config_that_is_not_of_the_checkpoints(copied):
  """Nothing of it shows in shapes: the answers would just be wrong."""
  _edit(copied / "config.json", lambda c: c["model"].update(heads=1))
  _refused(copied, r"config\.json .* differs .* model\.heads", "copy both")


def test_a_checkpoint_of_another_vocabulary(copied, pipeline, tmp_path):
  jsons = tmp_path / "world" / "SWiG_jsons"
  shutil.copytree(pipeline.folder / "world" / "SWiG_jsons", jsons)
  space = jsons / "imsitu_space.json"
  _edit(space, lambda x: next(iter(x["verbs"].values())).update({"def": "new"}))
  _edit(
    copied / "config.json",
    lambda config: config["dataset"].update(folder=str(tmp_path / "world")),
  )
  _refused(copied, "has another vocabulary", "SWiG_jsons back")


def test_another_encoder_or_an_absent_cache(copied, pipeline, tmp_path):
  foundation = pipeline.folder / "foundation"
  shutil.copytree(foundation / "student_clip", tmp_path / "student")
  weights = tmp_path / "student" / "model.safetensors"
  content = bytearray(weights.read_bytes())
  content[-1] ^= 1
  weights.write_bytes(content)
  config = copied / "config.json"
  original = config.read_text()
  _edit(
    config,
    lambda x: x["teacher"].update(student_encoder=str(tmp_path / "student")),
  )
  _refused(copied, "is not the encoder", "weights back")
  config.write_text(original)
  _edit(config, lambda x: x["teacher"].update(cache=str(tmp_path / "gone")))
  _refused(copied, "gone has no labels.npz", "--mode=prepare")


def test_words_and_labels_in_a_bucket(copied, pipeline, tmp_path, monkeypatch):
  """Two files of the cache and the JSONs are fetched, no image, no feature."""
  monkeypatch.setenv(buckets.PLACE, str(tmp_path / "local"))
  fake_bucket.install(monkeypatch, tmp_path / "cloud")
  there = tmp_path / "cloud" / "bucket"
  shutil.copytree(
    pipeline.folder / "world" / "SWiG_jsons", there / "world" / "SWiG_jsons"
  )
  (there / "cache").mkdir()
  for name in ("labels.npz", "manifest.json"):
    shutil.copy(pipeline.folder / "cache" / name, there / "cache" / name)

  def change(config):
    config["dataset"].update(folder="gs://bucket/world", world=None)
    config["teacher"].update(cache="gs://bucket/cache", foundation="")

  _edit(copied / "config.json", change)
  assert Predictor.from_workdir(copied).vocabulary.verbs
  (there / "cache" / "manifest.json").write_text('{"format": 1}')
  _refused(copied, "gs://bucket/cache/manifest.json has format 1", "again")


def test_an_imported_checkpoint_takes_the_config_that_is_given(
  copied,
  pipeline,
):
  (copied / "config.json").unlink()
  _refused(copied, "has no config.json", "train first")
  config = pipeline.config(copied)
  assert Predictor.from_workdir(copied, config=config).config == config


def test_a_checkpoint_that_does_not_fit_the_config(copied):
  for name in ("config.json", "run.json"):
    _edit(copied / name, lambda x: x["model"].update(hidden=64))
  _refused(copied, "does not fit the model", "workdir")
