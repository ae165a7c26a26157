import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import feature_cache, schema
from input_pipeline.feature_cache import ShardWriter, source_code
from input_pipeline.io import atomic
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import builder
from mipd_jax.devices import sharding
from mipd_jax.teachers import precompute
from mipd_jax.teachers.image_teachers import TEACHER_VERB_TEXT, ZeroShotTeacher
from tests.fakes import fakes
from tests.fixtures import swig_fixture

REPOSITORY = os.path.dirname(
  os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)
PUBLISHED = ("a scene", "a wrong scene", "an instance", "a wrong instance")


def config(**changes) -> precompute.PrecomputeConfig:
  values = {
    "batch_size": 4,
    "examples_per_shard": 6,
    "text_length": 12,
  }
  return precompute.PrecomputeConfig(**{**values, **changes})


def student() -> fakes.FakeClip:
  return fakes.FakeClip(image_size=16, width=8, text_width=6, seed=0)


def teacher(seed: int = 1) -> fakes.FakeClip:
  return fakes.FakeClip(image_size=24, width=10, text_width=7, seed=seed)


def prepare(folder):
  """The fixture's dataset; the first training record has published texts."""
  if not (folder / "swig").exists():
    swig_fixture.write(folder / "swig")
    path = folder / "swig/SWiG_jsons/train.json"
    records = swig_fixture.load(path)
    keys = ("pos_verb", "neg_verb", "pos_attr", "neg_attr")
    first = next(iter(records.values()))
    first |= {f"{k}_caption": t for k, t in zip(keys, PUBLISHED, strict=True)}
    swig_fixture.dump(path, records)
  return builder.prepare(folder / "swig", folder / "tfds")


def build(
  dataset, out, *, clips=None, devices=1, only=(), process=None, **changes
):
  mesh = sharding.make_mesh(devices=jax.devices()[:devices])
  small, large = clips or (student(), teacher())
  return precompute.build_cache(
    dataset,
    small,
    ZeroShotTeacher(large),
    out,
    config(**changes),
    mesh,
    only=only,
    process=process,
  )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  return prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(dataset, tmp_path_factory):
  return build(dataset, tmp_path_factory.mktemp("made") / "cache")


def contents(folder) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def everything(cache, split):
  source = cache.split(split)
  return source.read(np.arange(source.num_examples))


def test_splits_and_parts(cache, dataset):
  on_demand = ("answers", "instance_text")
  every = tuple(p for p in feature_cache.PARTS if p not in on_demand)
  assert cache.split("train").parts == every
  for name in ("dev", "test"):
    parts = ("student", "verb_logits", "clip_logits")
    assert cache.split(name).parts == parts
    assert cache.split(name).names == dataset.split(name).names
  counts = feature_cache.verify(cache.folder)
  assert counts["train"] == len(dataset.split("train"))


def test_batches_fit_the_contract(cache):
  batch = everything(cache, "train")
  batch[schema.EXAMPLE_MASK] = np.ones(len(batch[schema.VERB]), bool)
  sizes = schema.validate(batch, schema.TRAIN_KEYS)
  assert (sizes["N"], sizes["M"], sizes["L"], sizes["X"]) == (5, 10, 12, 6)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_annotations_are_those_of_the_images(cache, dataset, split):
  found, expected = everything(cache, split), dataset.split(split)
  for key, column in expected.annotations().items():
    if key != schema.EXAMPLE_MASK:
      np.testing.assert_array_equal(found[key], column)


@pytest.mark.parametrize("split", ["train", "test"])
def test_features_belong_to_their_images(cache, dataset, split):
  """Also in the last, padded batch of every shard."""
  images, found = dataset.split(split), everything(cache, split)
  clip = student()
  tokens = clip.image_tokens(
    clip.params, images.letterboxed(np.arange(len(images)), clip.image_size)
  )
  # Within bfloat16's rounding, and far closer than to the next image.
  close = {"rtol": 0.01, "atol": 1e-4}
  stored = found[schema.STUDENT_TOKENS].astype(np.float32)
  np.testing.assert_allclose(stored, tokens, **close)
  other = np.isclose(np.roll(stored, 1, axis=0), tokens, **close)
  assert not other.all(axis=(1, 2)).any()
  clip = teacher()
  pixels = images.letterboxed(np.arange(len(images)), clip.image_size)
  image = np.asarray(clip.image_embedding(clip.params, pixels))
  image = image / np.linalg.norm(image, axis=1, keepdims=True)
  bank = cache.labels()[TEACHER_VERB_TEXT]
  np.testing.assert_allclose(
    found[schema.VERB_LOGITS], 10 * image @ bank.T, rtol=1e-4, atol=1e-4
  )


def test_rationale_tokens_are_those_of_the_texts(cache):
  text = (cache.folder / "train/rationales.jsonl").read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  assert [line["image"] for line in lines] == list(cache.split("train").names)
  assert tuple(lines[0][key] for key in schema.RATIONALES) == PUBLISHED
  assert lines[1]["glimpse_pos"].startswith("cooking: ")
  found, clip = everything(cache, "train"), student()
  for i, line in enumerate(lines):
    four = [line[key] for key in schema.RATIONALES]
    ids, mask = clip.tokenize(four, 12)
    tokens = np.asarray(clip.text_tokens(clip.params, ids, mask))
    np.testing.assert_array_equal(found[schema.RATIONALE_MASK][i], mask)
    np.testing.assert_array_equal(
      found[schema.RATIONALE_TOKENS][i], tokens.astype("bfloat16")
    )


def test_negatives_never_name_an_unseen_or_the_true_verb(cache, dataset):
  words = dataset.vocabulary
  unseen = {words.verbs[v] for v in dataset.groups.verbs_in("unseen")}
  assert unseen
  text = (cache.folder / "train/rationales.jsonl").read_text()
  for line in list(map(json.loads, text.splitlines()))[1:]:
    true, wrong = (
      line[key].split(":")[0] for key in ("glimpse_pos", "glimpse_neg")
    )
    assert wrong in words.verbs and wrong != true and wrong not in unseen


def test_same_features_on_eight_devices(cache, dataset, tmp_path):
  if jax.device_count() < 8:
    pytest.skip("needs 8 devices, see conftest.py")
  other = build(dataset, tmp_path / "eight", devices=8, batch_size=8)
  for split in ("train", "dev"):
    here, there = everything(cache, split), everything(other, split)
    for key, value in here.items():
      np.testing.assert_allclose(
        there[key].astype(np.float32), value.astype(np.float32), atol=0.02
      )


def test_complete_cache_is_not_made_again(cache, dataset, monkeypatch):
  before = {p: p.stat().st_mtime_ns for p in cache.folder.rglob("*")}
  monkeypatch.setattr(precompute, "Encoders", None)
  build(dataset, cache.folder)
  assert before == {p: p.stat().st_mtime_ns for p in cache.folder.rglob("*")}


def test_damaged_cache_is_mended(dataset, cache, tmp_path):
  build(dataset, tmp_path / "cache")
  path = tmp_path / "cache/train/teacher-00001-of-00003.array_record"
  os.truncate(path, 1000)
  build(dataset, tmp_path / "cache")
  assert contents(tmp_path / "cache") == contents(cache.folder)


_KILLED = """
  import os, pathlib, signal, sys
  from tests import conftest
  from tests.cache import test_precompute

  test_precompute.after_events(
    int(sys.argv[3]), lambda: os.kill(os.getpid(), signal.SIGKILL), setattr
  )
  folder = pathlib.Path(sys.argv[1])
  test_precompute.build(test_precompute.prepare(folder), sys.argv[2])
"""


def after_events(count: int, stop, patch) -> None:
  """Calls `stop` at the count-th time that something reaches the disk."""
  left = [count]

  def counting(original):
    def call(*args, **kwargs):
      left[0] -= 1
      if left[0] == 0:
        stop()
      return original(*args, **kwargs)

    return call

  patch(ShardWriter, "write", counting(ShardWriter.write))
  patch(atomic, "publish", counting(atomic.publish))


def test_stopped_anywhere_then_finished_is_byte_identical(
  dataset, cache, tmp_path
):
  """Ten errors at random points; what was finished before is kept."""
  out, rng = tmp_path / "cache", np.random.default_rng(0)
  done = 0

  def stop():
    raise KeyboardInterrupt

  for _ in range(10):
    with pytest.MonkeyPatch.context() as patch:
      after_events(int(rng.integers(1, 40)), stop, patch.setattr)
      with pytest.raises(KeyboardInterrupt):
        build(dataset, out)
    with pytest.raises(InputError, match=r"unfinished|missing"):
      feature_cache.open_cache(out)
    notes = len(list((out / "building").glob("*.json")))
    assert notes >= done
    done = notes
  assert done > 10
  build(dataset, out)
  assert contents(out) == contents(cache.folder)


def _kill(dataset, out, events: int) -> None:
  folder = pathlib.Path(dataset.builder.data_dir).parents[3]
  done = subprocess.run(
    [
      *(sys.executable, "-c", textwrap.dedent(_KILLED)),
      *(str(folder), str(out), str(events)),
    ],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_half_way_then_finished_is_byte_identical(
  dataset, cache, tmp_path
):
  out = tmp_path / "cache"
  _kill(dataset, out, 40)
  with pytest.raises(InputError, match="unfinished"):
    feature_cache.open_cache(out)
  assert list((out / "train").glob("*.tmp"))
  build(dataset, out)
  assert contents(out) == contents(cache.folder)


@pytest.mark.slow
def test_killed_ten_times_then_finished_is_byte_identical(
  dataset, cache, tmp_path
):
  out, rng = tmp_path / "cache", np.random.default_rng(1)
  for _ in range(10):
    _kill(dataset, out, int(rng.integers(1, 20)))
  build(dataset, out)
  assert contents(out) == contents(cache.folder)


def test_parts_one_after_the_other_give_the_same_cache(
  dataset, cache, tmp_path
):
  out = tmp_path / "cache"
  for only in (["text"], ["verb_logits", "student"], ["labels"]):
    assert build(dataset, out, only=only) is None
    with pytest.raises(InputError, match="unfinished"):
      feature_cache.open_cache(out)
  made = {p.name.split("-")[0] for p in out.rglob("*.array_record")}
  assert made == {"text", "verb_logits", "student"}
  assert build(dataset, out, only=["teacher", "clip_logits"]) is not None
  assert contents(out) == contents(cache.folder)


def test_an_unknown_task_is_refused(dataset, tmp_path):
  with pytest.raises(InputError, match=r"no task .* called 'tokens'"):
    build(dataset, tmp_path / "cache", only=["tokens"])
  with pytest.raises(InputError, match=r"no dtype .* called 'int4'"):
    config(dtype="int4")


def test_three_processes_make_the_same_cache(dataset, cache, tmp_path):
  """Each its own shards; started in any order, they meet in the folder."""
  out = tmp_path / "cache"

  def work(index: int) -> None:
    made = build(dataset, out, process=precompute.Process(index, 3))
    assert made.folder == out

  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    list(pool.map(work, (2, 1, 0)))
  assert contents(out) == contents(cache.folder)


def test_int8_tokens_are_close_and_their_error_is_told(
  dataset, cache, tmp_path, caplog
):
  caplog.set_level("INFO")
  small = build(dataset, tmp_path / "cache", dtype="int8")
  feature_cache.verify(small.folder)
  here, there = everything(cache, "train"), everything(small, "train")
  assert here.keys() == there.keys()
  errors = small.quantisation_error()
  for key in (schema.STUDENT_TOKENS, schema.TEACHER_TOKENS):
    tokens, stored = (x[key].astype(np.float32) for x in (here, there))
    assert there[key].dtype == here[key].dtype
    largest = np.abs(tokens).max(axis=-1, keepdims=True)
    # Half a level, and the roundings to bfloat16 on both sides.
    assert (np.abs(stored - tokens) <= largest * (0.5 / 127 + 0.008)).all()
    assert 0 < errors[key] < 0.01
    assert f"{key} as int8: relative error {100 * errors[key]:.2f}" in (
      caplog.text
    )
  np.testing.assert_array_equal(
    here[schema.VERB_LOGITS], there[schema.VERB_LOGITS]
  )
  part, whole = (c.plan.record_bytes("teacher") for c in (small, cache))
  assert part < whole


def test_another_teacher_is_refused_before_any_work(cache, dataset):
  with pytest.raises(InputError, match="another revision of the teacher"):
    build(dataset, cache.folder, clips=(student(), teacher(seed=2)))


def test_code_that_changed_is_refused_and_a_moved_folder_is_not(
  cache, dataset, tmp_path, monkeypatch
):
  for name in source_code.PACKAGES:
    shutil.copytree(source_code.ROOT / name, tmp_path / name)
  monkeypatch.setattr(source_code, "ROOT", tmp_path)
  before = contents(cache.folder)
  path = tmp_path / "mipd_jax/teachers/labels.py"
  text = path.read_text()
  path.write_text(text.replace('"""Text banks', '# Told.\n"""Banks', 1))
  assert build(dataset, cache.folder).plan == cache.plan
  path.write_text(
    text.replace("_DEFINITION_WORDS = 40", "_DEFINITION_WORDS = 9")
  )
  with pytest.raises(InputError) as error:
    build(dataset, cache.folder)
  assert "code of mipd_jax.teachers.labels has changed" in str(error.value)
  assert "prepare it again" in error.value.remedy
  assert str(error.value).count("code of") == 1
  assert contents(cache.folder) == before


def test_a_second_run_is_told_who_makes_the_cache(dataset, tmp_path):
  out = tmp_path / "cache"
  with (
    feature_cache.alone(out),
    pytest.raises(InputError, match=f"in use by process {os.getpid()} on"),
  ):
    build(dataset, out)
  assert not list(out.iterdir())


def test_sizes_that_do_not_fit_are_refused(dataset, tmp_path):
  with pytest.raises(InputError, match="batch of 3 does not divide"):
    build(dataset, tmp_path / "cache", devices=2, batch_size=3)
  clip = student()
  clip.tokenize = lambda texts, length: fakes.FakeClip.tokenize(clip, texts, 8)
  with pytest.raises(InputError, match="reads 8 tokens at most"):
    build(dataset, tmp_path / "cache", clips=(clip, teacher()))
  assert not (tmp_path / "cache").exists()


def test_long_rationales_are_reported(dataset, tmp_path, caplog):
  build(dataset, tmp_path / "cache", text_length=3, splits=("train",))
  assert "fill all 3 tokens" in caplog.text


def test_mirrored_views_have_features_of_their_own(dataset, cache, tmp_path):
  both = dataset.with_mirrored_views()
  made = build(both, tmp_path / "cache")
  n = len(dataset.split("train"))
  found, plain = everything(made, "train"), everything(cache, "train")
  assert made.split("dev").num_examples == cache.split("dev").num_examples
  for key in (schema.STUDENT_TOKENS, schema.TEACHER_TOKENS, schema.BOXES):
    np.testing.assert_array_equal(found[key][:n], plain[key])
  clip = student()
  pixels = dataset.split("train").letterboxed(np.arange(n), clip.image_size)
  tokens = clip.image_tokens(clip.params, pixels[:, :, ::-1])
  np.testing.assert_allclose(
    found[schema.STUDENT_TOKENS][n:].astype(np.float32),
    tokens,
    rtol=0.01,
    atol=1e-4,
  )
  # Templates speak of the mirrored boxes.
  lines = (made.folder / "train/rationales.jsonl").read_text().splitlines()
  sides = [json.loads(line)["gaze_pos"].count("left") for line in lines]
  assert sides[:n] != sides[n:]
  with pytest.raises(InputError, match="dataset"):
    build(dataset, tmp_path / "cache")


class _Blinded(fakes.FakeClip):
  """Sees nothing in one image, or reads nothing in texts."""

  def __init__(self, clip: fakes.FakeClip, *, image=None, part=""):
    vars(self).update(vars(clip))
    self._image, self._part = image, part

  def image_features(self, params, pixels):
    tokens, embedding = super().image_features(params, pixels)
    if self._image is None:
      return tokens, embedding
    far = jnp.abs(pixels.astype(jnp.float32) - self._image).max((1, 2, 3)) > 0
    if self._part == "logits":
      return tokens, jnp.where(far[:, None], embedding, jnp.inf)
    return jnp.where(far[:, None, None], tokens, jnp.nan), embedding

  def text_tokens(self, params, ids, mask):
    tokens = super().text_tokens(params, ids, mask)
    return tokens * jnp.nan if self._part in ("words", "texts") else tokens

  def text_embedding(self, params, ids, mask):
    rows = super().text_embedding(params, ids, mask)
    return rows * jnp.nan if self._part == "texts" else rows


@pytest.mark.parametrize(
  ("blind", "part", "dtype", "told"),
  [
    ("student", "tokens", "bfloat16", "student_tokens for image"),
    ("student", "tokens", "int8", "student_tokens"),
    ("student", "logits", "bfloat16", "clip_logits for image"),
    ("teacher", "tokens", "bfloat16", "teacher_tokens for image"),
    ("teacher", "logits", "int8", "verb_logits for image"),
    ("student", "words", "bfloat16", "rationale_tokens for the rationales of"),
    ("student", "texts", "bfloat16", "texts no direction .* the first is"),
  ],
)
def test_an_encoder_that_gives_no_numbers_is_stopped(
  dataset, tmp_path, blind, part, dtype, told
):
  """At encoding, with its name and the image's; that shard is not written."""
  clips = {"student": student(), "teacher": teacher()}
  clip, split = clips[blind], dataset.split("train")
  place = 3
  image = split.letterboxed(np.array([place]), clip.image_size)[0]
  if part in ("words", "texts"):
    image, place = None, 0
  clips[blind] = _Blinded(clip, image=image, part=part)
  with pytest.raises(InputError, match=told) as caught:
    build(dataset, tmp_path / "cache", clips=clips.values(), dtype=dtype)
  message = str(caught.value)
  assert clip.name in message
  assert part == "texts" or split.names[place] in message
