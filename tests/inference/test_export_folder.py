"""What an exported folder holds, and when there is none."""

import dataclasses
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import zipimport

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from input_pipeline.geometry import letterbox_image
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.vocabulary import PAD
from mipd_jax import export, presets
from mipd_jax.exporting import exported_folder, model_card, weights
from mipd_jax.exporting import programs as words_lib
from mipd_jax.inference import pictures as image_lib
from mipd_jax.inference.words import Words
from mipd_jax.report import files
from tests.fixtures import export_fixture, predict_fixture


def _params():
  rng = np.random.default_rng(0)
  return {
    "clip": {"kernel": rng.normal(size=(5, 4, 3)).astype(np.float32)},
    "student": {
      "scale": np.float32(2.5),
      "bias": rng.normal(size=3).astype(np.float32),
      "zero": np.zeros((4, 2), np.float32),
      "half": rng.normal(size=(2, 2)).astype(jnp.bfloat16),
    },
  }


@pytest.mark.parametrize("dtype", weights.DTYPES)
def test_weights_come_back_within_their_rounding(dtype):
  arrays = weights.flat(_params())
  dtypes = {name: array.dtype for name, array in arrays.items()}
  stored = weights.stored(arrays, dtype)
  found = weights.flat(weights.restored(stored, dtypes))
  assert {name: x.dtype for name, x in found.items()} == dtypes
  assert {name: x.shape for name, x in found.items()} == {
    name: x.shape for name, x in arrays.items()
  }
  kernel, near = arrays["clip.kernel"], found["clip.kernel"]
  step = {
    "float32": 0.0,
    "bfloat16": np.abs(kernel) / 2**8,
    "int8": np.abs(kernel).max(axis=(0, 1)) / 127 / 2,
  }[dtype]
  assert (np.abs(near - kernel) <= step + 1e-7 * (dtype == "int8")).all()
  assert (near != kernel).any() == (dtype != "float32")
  assert not found["student.zero"].any()
  assert found["student.scale"] == 2.5
  size = stored["clip.kernel"].nbytes
  assert size == kernel.size * {"float32": 4, "bfloat16": 2, "int8": 1}[dtype]


@pytest.fixture(scope="module")
def exported():
  return export_fixture.exported()


def test_the_loader_reads_safetensors(exported, tmp_path):
  arrays = {
    "a.b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "c": np.array([1.5, -2], jnp.bfloat16),
    "d": np.array([[-3], [4]], np.int8),
    "e": np.array([True, False, True]),
    "f": np.array(7, np.int32),
  }
  save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "x"})
  load = export_fixture.scripts(exported).load.__globals__
  found = load["tensors"]((tmp_path / "x.safetensors").read_bytes())
  assert set(found) == set(arrays)
  for name, array in arrays.items():
    assert found[name].dtype == array.dtype and found[name].shape == array.shape
    assert (found[name] == array).all()


def test_the_letterbox_is_ours(exported, tmp_path):
  scripts = export_fixture.scripts(exported)
  for seed, size in enumerate([(40, 28), (9, 64), (200, 1), (1, 1)]):
    image = predict_fixture.photograph(seed, *size)
    pixels, (height, width) = scripts.letterbox(image, 48)
    assert (width, height) == size
    assert (pixels == letterbox_image(image, 48)).all()


def _grey16(low, high):
  ramp = np.linspace(low, high, 30 * 20).reshape(20, 30)
  return Image.fromarray(ramp.round().astype(np.uint16))


def _floats(low, high, *odd):
  ramp = np.linspace(low, high, 30 * 20, dtype=np.float32).reshape(20, 30)
  ramp.flat[: len(odd)] = odd
  return Image.fromarray(ramp)


_RAMP = np.arange(30 * 20, dtype=np.int32).reshape(20, 30) * 4


def _mode(mode, size=(30, 20)):
  """A photograph in a mode, partly transparent where it can be."""
  photo = predict_fixture.photograph(7, *size)
  if mode in ("LAB", "La", "RGBa"):
    given = {"LAB": "RGB", "La": "LA", "RGBa": "RGBA"}[mode]
    channels = len(Image.new(mode, (1, 1)).getbands())
    data = np.asarray(photo.convert(given))[..., :channels]
    return Image.frombytes(mode, size, np.ascontiguousarray(data).tobytes())
  if mode.endswith("A"):
    photo = photo.convert("RGBA")
    photo.putalpha(Image.linear_gradient("L").resize(size))
  if mode == "PA":
    return photo.convert("LA").convert("PA")
  return photo.convert(mode)


def _clear_palette():
  image = _mode("P")
  image.info["transparency"] = 3
  return image


def _written(path, image, **settings):
  image.save(path, **settings)
  return path


def _tagged(path, turn, mode="RGB"):
  exif = Image.Exif()
  exif[0x0112] = turn
  return _written(path, _mode(mode), exif=exif)


_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")
_IMAGES = {
  **{
    mode: lambda _, mode=mode: _mode(mode)
    for mode in (*_MODES, "HSV", "La", "RGBa")
  },
  "clear palette": lambda _: _clear_palette(),
  "grey 16": lambda _: _grey16(1000, 60_000),
  "dark grey 16": lambda _: _grey16(0, 200),
  "grey 16 png": lambda at: _written(at / "a.png", _grey16(9, 65_000)),
  "grey 16 tiff": lambda at: _written(at / "a.tif", _grey16(9, 65_000)),
  "grey 32": lambda _: _grey16(0, 65_535).convert("I"),
  "negative 32": lambda _: Image.new("I", (9, 9), -5),
  "large 32": lambda _: Image.fromarray(_RAMP * 2**20),
  "signed 32": lambda _: Image.fromarray(_RAMP - 1000),
  "clear grey 16": lambda at: _written(
    at / "a.png", _grey16(0, 65_000), transparency=0
  ),
  "floats": lambda at: _written(at / "a.tif", _floats(0.1, 0.8)),
  "large floats": lambda _: _floats(-900, 7e5),
  "odd floats": lambda _: _floats(0.1, 0.8, np.nan, np.inf, -np.inf),
  "no floats": lambda _: _floats(np.nan, np.nan),
  "one float": lambda _: _floats(0.5, 0.5),
  "turned 16": lambda at: _tagged(at / "a.png", 6, "I;16"),
  "animated": lambda at: _written(
    at / "a.gif",
    _mode("P"),
    save_all=True,
    append_images=[Image.new("P", (30, 20))] * 2,
  ),
  "huge": lambda at: _written(at / "a.jpg", _mode("RGB", (8000, 2500))),
  "huge palette": lambda at: _written(at / "a.png", _mode("P", (6000, 2700))),
  "strip": lambda at: _written(at / "a.png", _mode("L", (30_000, 700))),
  **{
    f"turn {turn}": lambda at, turn=turn: _tagged(at / "a.jpg", turn)
    for turn in range(1, 10)
  },
  **{
    f"turn {turn} tiff": lambda at, turn=turn: _tagged(at / "a.tif", turn)
    for turn in (3, 6)
  },
}


@pytest.mark.parametrize("kind", _IMAGES)
def test_the_script_sees_images_as_the_predictor_does(exported, tmp_path, kind):
  source = _IMAGES[kind](tmp_path)
  picture = image_lib.open_image(source, kind)
  script = export_fixture.scripts(exported)
  image = source if isinstance(source, Image.Image) else Image.open(source)
  pixels, size = script.letterbox(image, 48)
  assert size == (picture.height, picture.width)
  assert (pixels == letterbox_image(picture.pixels, 48)).all()


@pytest.mark.parametrize(
  "kind", ["grey 16", "large 32", "signed 32", "floats", "odd floats"]
)
def test_greys_of_many_bits_keep_their_tones(tmp_path, kind):
  found = image_lib.open_image(_IMAGES[kind](tmp_path), kind).pixels
  tones = np.asarray(found)[..., 0]
  assert len(np.unique(tones)) > 100 and (np.diff(tones[1:].ravel()) >= 0).all()


def _damaged(*_):
  struct.unpack("<I", b"")


def test_the_script_names_what_it_cannot_read(exported, tmp_path, capsys):
  good, bad = tmp_path / "good.png", tmp_path / "bad.png"
  predict_fixture.photograph(0).save(good)
  bad.write_bytes(b"no image")
  with pytest.MonkeyPatch.context() as patch:
    script = export_fixture.scripts(exported)
    student = export_fixture.student(exported, "baked")
    patch.setattr(script, "Student", lambda: student)
    assert script.main([str(bad), str(good)]) == 2
    lines = capsys.readouterr().out.splitlines()
    # No program is started for what Pillow doesn't decode by itself.
    bad.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert script.main([str(bad)]) == 2
    assert "cannot identify" in capsys.readouterr().out
    patch.setattr(script, "letterbox", _damaged)  # as Pillow's readers do
    assert script.main([str(good)]) == 2
    assert "unpack requires" in capsys.readouterr().out
    patch.undo()
    patch.setattr(script, "Student", lambda: student)
    first, second = map(json.loads, lines)
    assert first["image"] == str(bad) and "identify" in first["error"]
    assert second["image"] == str(good) and second["verb"]
    assert script.main([str(good)]) == 0
  assert script.main([]) == 2 and script.main(["--help"]) == 0
  for content in ("{", "[]", "{}", '{"format": 2}', '{"format": 3}'):
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ValueError, match=r"labels\.json"):
      script.Student(tmp_path)
  assert "photo.jpg" in capsys.readouterr().err


def test_labels_are_the_words(exported):
  labels = json.loads((exported / exported_folder.LABELS).read_text())
  words = predict_fixture.opened().words
  assert labels["verbs"] == list(words.verbs)
  assert labels["noun_classes"] == [n for n in words.nouns if n != PAD]
  assert labels["nouns"][:3] == ["", "dog", "man"]
  assert labels["frames"] == [
    list(words.frame_roles(i)) for i in range(len(words.verbs))
  ]
  assert labels["side"] == predict_fixture.SIDE and labels["top_k"] == 4


def test_the_reader_is_whole(exported):
  archive = zipimport.zipimporter(str(exported / exported_folder.READER))
  for name in ("builder", "table", "number_types", "compat", "util"):
    assert archive.find_spec(f"flatbuffers/{name}") is not None
  assert archive.find_spec("flatbuffers/absent") is None


def test_the_card_says_what_is_known(tmp_path):
  opened = predict_fixture.opened()
  opened = dataclasses.replace(opened, folder=tmp_path)
  lexicon = exported_folder.resolve(opened, Words())

  def text():
    return model_card.card(
      opened, lexicon, exported_folder.Settings(), {}, {"load.py": 1234}
    )

  said = text()
  assert "was not evaluated" in said and "Unknown" in said
  assert "| load.py | 1,234 |" in said and "5 verbs, 8 nouns" in said
  scores = {"images": 7, "verb_top1": 43.21}
  results = {
    "dataset": "world",
    "split": "test",
    "step": opened.step,
    "models": {"student": {"all": scores}},
  }
  files.write_results(tmp_path, results)
  assert "43.21" in text() and "not of this one" not in text()
  files.write_results(tmp_path, {**results, "step": 3})
  assert "step 3, not of this one" in text()
  (tmp_path / "results.json").write_text("{")
  for wrong, said in (
    ("{", "cut off"),
    ("[]", "expected an object"),
    ('{"models": []}', "models is a list|models is \\[\\]"),
    ('{"models": {"student": 3}}', "models.student is 3"),
  ):
    (tmp_path / "results.json").write_text(wrong)
    with pytest.raises(InputError, match=rf"results\.json.*({said})") as error:
      text()
    assert "--mode=eval" in error.value.remedy


@pytest.mark.parametrize(
  ("preset", "rationales", "said"),
  [
    ("mipd", "templates-9 seed=0", "its rationales written by template"),
    ("mipd", "jrg-1 m", "its rationales written by a language model"),
    ("no_distillation", "templates-9", "none: trained without (preset no_dis"),
  ],
)
def test_the_card_claims_no_more_than_is_true(preset, rationales, said):
  opened = predict_fixture.opened()
  model, loss = presets.preset_defaults(preset)
  opened = dataclasses.replace(
    opened,
    config=dataclasses.replace(
      opened.config, preset=preset, model=model, loss=loss
    ),
    plan=dataclasses.replace(opened.plan, rationales=rationales),
  )
  lexicon = exported_folder.resolve(opened, Words())
  text = model_card.card(opened, lexicon, exported_folder.Settings(), {}, {})
  (row,) = [line for line in text.splitlines() if "| Teacher |" in line]
  assert said in row
  assert (opened.config.teacher.teacher_encoder in row) == (preset == "mipd")


def test_a_folder_is_whole_or_not_there(tmp_path, monkeypatch):
  def fail(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(model_card, "card", fail)
  # Tracing is not what this is about.
  monkeypatch.setattr(
    exported_folder.programs, "exported", lambda *_, **__: _Blob()
  )
  out = tmp_path / "out"
  with pytest.raises(KeyboardInterrupt):
    exported_folder.write(predict_fixture.opened(), out)
  assert not list(tmp_path.iterdir())
  monkeypatch.setattr(model_card, "card", lambda *_: "card")
  out.mkdir()
  sizes = exported_folder.write(predict_fixture.opened(), out)
  assert {path.name for path in out.iterdir()} == {*sizes, exported_folder.CARD}
  assert [path.name for path in tmp_path.iterdir()] == ["out"]
  with pytest.raises(InputError, match="not an empty folder"):
    exported_folder.write(predict_fixture.opened(), out)


class _Blob:
  def serialize(self):
    return b"program"


def test_one_form_leaves_the_other_out(tmp_path, monkeypatch):
  monkeypatch.setattr(
    exported_folder.programs, "exported", lambda *_, **__: _Blob()
  )
  settings = exported_folder.Settings(("baked",), "int8")
  sizes = exported_folder.write(
    predict_fixture.opened(), tmp_path / "x", None, settings
  )
  assert "baked.stablehlo" in sizes and "passed.stablehlo" not in sizes
  assert exported_folder.WORDS not in sizes
  labels = json.loads((tmp_path / "x" / exported_folder.LABELS).read_text())
  assert labels["forms"] == ["baked"] and labels["weights"] == "int8"


def test_lists_shorter_than_the_guesses_get_filler():
  opened = predict_fixture.opened()
  lexicon = exported_folder.resolve(
    opened, Words.of(["jumping"], ["dog", "man"])
  )
  arrays = words_lib.arrays(lexicon, 5)
  assert arrays["verb_mask"].tolist() == [True] + [False] * 4
  assert arrays["noun_mask"].tolist() == [True, True] + [False] * 3
  assert arrays["noun_text"].shape == (5, opened.banks["noun_text"].shape[1])
  assert (arrays["roles"][0, :3] >= 0).all() and (arrays["roles"][1:] < 0).all()
  assert arrays["by_text"].shape == () and not arrays["by_text"]


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["--out={}/taken"], "not an empty folder"),
    (["--out=gs://bucket/x"], "is in a bucket"),
    (["--out={}/x", "--top_k=0"], "top_k is 0"),
    (["--out={}/x", "--vocabulary={}/none.yaml"], "none.yaml"),
    (["--out={}/x"], "is no work directory"),
    (["--out={}/taken/file"], "is a file"),
    (["--out={}/taken/file/x"], "is a file"),
    (["--out={}/dangling"], "is a link to nothing"),
    (["--out=/proc/x"], "cannot be written"),
    (["--out={}/" + "x" * 300], "too long"),
    (["--out=s3://bucket/x"], "is in a bucket"),
  ],
)
def test_bad_input_is_told_before_any_work(tmp_path, capsys, arguments, said):
  (tmp_path / "taken").mkdir()
  (tmp_path / "taken" / "file").touch()
  (tmp_path / "dangling").symlink_to("absent")
  flags = [argument.format(tmp_path) for argument in arguments]
  assert export.main([f"--workdir={tmp_path}/work", *flags]) == 2
  assert said in capsys.readouterr().err
  assert not (tmp_path / "x").exists()


def _install(venv: pathlib.Path) -> pathlib.Path:
  """A virtual environment with this jax and numpy and what they require."""
  import jax

  subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
  python = venv / "bin" / "python"
  wanted = [f"jax=={jax.__version__}", f"numpy=={np.__version__}"]
  done = subprocess.run(
    [str(python), "-m", "pip", "install", "--quiet", *wanted],
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    pytest.skip(f"pip cannot install jax here: {done.stderr[-200:]}")
  return python


_RUN = """
import sys
import numpy as np
from predict import Student
for form in ("baked", "passed"):
  arrays = np.load(sys.argv[1])
  found = Student(form=form)(arrays["pixels"], arrays["sizes"])
  print(found[0]["verb"], found[0]["verbs"][0]["probability"])
for name in ("flax", "mipd_jax", "safetensors", "PIL", "transformers"):
  try:
    __import__(name)
  except ImportError:
    continue
  raise SystemExit(f"{name} is installed")
import flatbuffers
assert "flatbuffers.zip" in flatbuffers.__file__
"""


@pytest.mark.slow
def test_the_loader_needs_jax_and_numpy_alone(exported, tmp_path):
  image = predict_fixture.photograph(0)
  np.savez(
    tmp_path / "images.npz",
    pixels=letterbox_image(image, predict_fixture.SIDE)[None],
    sizes=[(image.height, image.width)],
  )
  python = _install(tmp_path / "venv")
  done = subprocess.run(
    [str(python), "-c", _RUN, str(tmp_path / "images.npz")],
    env={"PYTHONPATH": str(exported), "JAX_PLATFORMS": "cpu"},
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  expected = predict_fixture.predictor().predict(image)
  for line in done.stdout.splitlines():
    verb, share = line.split()
    assert verb == expected.verb
    assert abs(float(share) - expected.verbs[0].probability) < 1e-4
  assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
  "name",
  [
    *("baked.stablehlo", "weights.safetensors", "words.safetensors"),
    *("flatbuffers.zip", "labels.json", "passed.stablehlo", "passed.sha256"),
  ],
)
def test_one_wrong_bit_is_named(exported, tmp_path, name):
  broken = pathlib.Path(shutil.copytree(exported, tmp_path / "exported"))
  data = bytearray((broken / name).read_bytes())
  place = len(data) // 3
  if name == "labels.json":
    place = data.index(b"dog")
  data[place] ^= 1
  (broken / name).write_bytes(data)
  scripts = export_fixture.scripts(broken)
  form = "passed" if name.startswith(("words", "passed")) else "baked"
  said = name.replace("sha256", "stablehlo")
  with pytest.raises(ValueError, match=rf"{said} is .*damaged"):
    scripts.Student(broken, form)


def test_damage_is_one_line_and_exit_code_2(exported, tmp_path):
  broken = pathlib.Path(shutil.copytree(exported, tmp_path / "exported"))
  program = broken / "baked.stablehlo"
  program.write_bytes(program.read_bytes()[:-1000])
  done = subprocess.run(
    [sys.executable, "predict.py", "absent.jpg"],
    cwd=broken,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2 and "Traceback" not in done.stderr
  assert "baked.stablehlo is not the file" in done.stderr


def test_words_of_a_second_export_go_with_the_first_program(exported, tmp_path):
  """As docs/export.md says; the baked program then no longer fits."""
  words = Words.of(nouns=["cat", "dog"])
  settings = exported_folder.Settings(top_k=4)
  exported_folder.write(
    predict_fixture.opened(), tmp_path / "other", words, settings
  )
  mixed = pathlib.Path(shutil.copytree(exported, tmp_path / "mixed"))
  for name in (exported_folder.WORDS, exported_folder.LABELS):
    shutil.copy(tmp_path / "other" / name, mixed / name)
  pixels = np.zeros(
    (1, predict_fixture.SIDE, predict_fixture.SIDE, 3), np.uint8
  )
  student = export_fixture.student(mixed, "passed")
  (found,) = student(pixels, [(9, 9)])
  known = {noun["noun"] for role in found["roles"] for noun in role["nouns"]}
  assert known <= {"", "cat", "dog"}
  with pytest.raises(ValueError, match=r"baked\.stablehlo is not the file"):
    export_fixture.student(mixed, "baked")
