import json
import os
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from input_pipeline import feature_cache, ov_swig, schema
from input_pipeline.errors import InputError
from mipd_jax import sharding
from mipd_jax.teachers import precompute
from tests import fakes, swig_fixture

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
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
  return ov_swig.prepare(folder / "swig", folder / "tfds")


def build(dataset, out, *, clips=None, devices=1, **changes):
  mesh = sharding.make_mesh(devices=jax.devices()[:devices])
  clips = clips or (student(), teacher())
  return precompute.build_cache(dataset, *clips, out, config(**changes), mesh)


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
  assert cache.split("train").parts == ("student", "teacher", "zero_shot")
  for name in ("dev", "test"):
    assert cache.split(name).parts == ("student", "zero_shot")
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
  bank = cache.labels()[precompute.TEACHER_VERB_TEXT]
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
  from input_pipeline.feature_cache.shard import ShardWriter
  from tests import conftest, test_precompute

  writes, original = [], ShardWriter.write

  def write(self, values):
    writes.append(values)
    if len(writes) == 8:  # in the middle of the second group of shards
      os.kill(os.getpid(), signal.SIGKILL)
    original(self, values)

  ShardWriter.write = write
  folder = pathlib.Path(sys.argv[1])
  test_precompute.build(test_precompute.prepare(folder), sys.argv[2])
"""


def test_killed_half_way_then_finished_is_byte_identical(
  dataset, cache, tmp_path
):
  folder = os.path.dirname(os.path.dirname(dataset.builder.data_dir))
  folder = os.path.dirname(os.path.dirname(folder))
  out = tmp_path / "cache"
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(_KILLED), folder, str(out)],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr
  with pytest.raises(InputError, match="unfinished"):
    feature_cache.open_cache(out)
  shards = {p.name for p in (out / "train").glob("*.array_record")}
  assert shards == {
    f"{part}-00000-of-00003.array_record" for part in feature_cache.PARTS
  }
  assert list((out / "train").glob("*.tmp"))
  build(dataset, out)
  assert contents(out) == contents(cache.folder)


def test_another_teacher_is_refused_before_any_work(cache, dataset):
  with pytest.raises(InputError, match="another revision of the teacher"):
    build(dataset, cache.folder, clips=(student(), teacher(seed=2)))


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
