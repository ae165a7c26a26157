import concurrent.futures
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pytest

from input_pipeline import feature_cache, schema
from input_pipeline.feature_cache import Field, SplitPlan, shard
from input_pipeline.feature_cache.__main__ import main
from input_pipeline.feature_cache.plan import CachePlan
from input_pipeline.io import commands, lock
from input_pipeline.io.errors import InputError
from tests.fakes import fakes

REPOSITORY = os.path.dirname(
  os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)


@pytest.fixture
def folder(tmp_path):
  fakes.write_cache(tmp_path / "cache", fakes.plan())
  return tmp_path / "cache"


def contents(folder) -> dict[str, bytes]:
  """Every file of a folder by its relative path."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def test_what_is_written_is_read(folder):
  cache = feature_cache.open_cache(folder, fakes.plan())
  split = cache.split("train")
  assert split.num_examples == 11
  assert split.names[3] == "3.jpg"
  indices = np.array([10, 0, 4, 3, 4])
  batch = split.read(indices)
  for key, value in fakes.features(fakes.plan(), "train").items():
    assert batch[key].dtype == value.dtype
    np.testing.assert_array_equal(batch[key], value[indices])
  np.testing.assert_array_equal(batch[schema.INDEX], indices)
  assert set(batch) == set(split.keys)
  batch[schema.EXAMPLE_MASK] = np.ones(5, bool)
  sizes = schema.validate(batch, schema.TRAIN_KEYS)
  assert sizes["V"] == 3 and sizes["N"] == 5
  assert set(cache.labels()) == {"verb_text"}


def test_parts_are_read_only_when_asked_for(folder):
  cache = feature_cache.open_cache(folder)
  for path in (folder / "train").glob("teacher*"):
    path.unlink()
  batch = cache.split("train", ("student",)).read(np.arange(2))
  assert set(batch) == {*feature_cache.COLUMNS, schema.STUDENT_TOKENS}


def test_missing_part_and_split_are_named(folder):
  cache = feature_cache.open_cache(folder)
  with pytest.raises(InputError, match=r"'dev' .* has no .'teacher'"):
    cache.split("dev", ("student", "teacher"))
  with pytest.raises(InputError, match="no split 'test'"):
    cache.split("test")


def test_index_outside_the_split(folder):
  split = feature_cache.open_cache(folder).split("dev")
  with pytest.raises(IndexError, match=r"0\.\.4"):
    split.read(np.array([5]))


def test_threads_share_a_split(folder):
  split = feature_cache.open_cache(folder).split("train")
  expected = fakes.features(fakes.plan(), "train")[schema.TEACHER_TOKENS]

  def read(seed):
    indices = np.random.default_rng(seed).integers(0, 11, 32)
    found = split.read(indices)[schema.TEACHER_TOKENS]
    return bool((found == expected[indices]).all())

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert all(pool.map(read, range(40)))


def test_plan_survives_json():
  plan = fakes.plan()
  again = CachePlan.from_json(json.loads(json.dumps(plan.to_json())))
  assert again == plan and again.plan_hash == plan.plan_hash
  assert fakes.plan(teacher="x").plan_hash != plan.plan_hash


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"teacher": "huge"}, "another teacher .*'big'.*'huge'"),
    ({"teacher_revision": "t2"}, "another revision of the teacher"),
    ({"student": "tiny"}, "another student encoder"),
    ({"dataset": "images-b"}, "other images.*'images-a'.*'images-b'"),
    ({"vocabulary": "words-b"}, "another vocabulary"),
    ({"rationales": "published"}, "other rationales"),
    ({"options": (("dtype", "bfloat16"),)}, "other options"),
    ({"splits": (SplitPlan("train", 9, ("student",)),)}, "other splits"),
    (
      {"code": (("mipd_jax.teachers.clip", "2"), ("a.b", "1"))},
      "code of mipd_jax.teachers.clip has changed since",
    ),
    ({"code": (("a.b", "1"),)}, "clip is not used any more"),
    ({"code": (("x.y", "1"), ("a.b", "1"))}, "x.y is used now and was not"),
  ],
)
def test_cache_made_for_something_else(folder, change, words):
  with pytest.raises(InputError, match=words) as caught:
    feature_cache.open_cache(folder, fakes.plan(**change))
  assert "delete that folder" in caught.value.remedy
  # Nor does a writer touch it.
  before = contents(folder)
  with pytest.raises(InputError, match=words):
    feature_cache.CacheWriter(folder, fakes.plan(**change))
  assert contents(folder) == before


def test_only_changed_modules_are_named(folder):
  code = (("mipd_jax.teachers.clip", "2"), ("a.b", "1"))
  with pytest.raises(InputError) as caught:
    feature_cache.open_cache(folder, fakes.plan(code=code))
  assert "a.b" not in str(caught.value)


def test_missing_and_unfinished_caches(tmp_path):
  with pytest.raises(InputError, match="is missing"):
    feature_cache.open_cache(tmp_path / "nowhere")
  fakes.write_cache(tmp_path / "half", fakes.plan(), finish=False)
  with pytest.raises(InputError, match="is unfinished") as caught:
    feature_cache.open_cache(tmp_path / "half")
  assert "prepare" in caught.value.remedy


def test_finish_refuses_a_cache_with_a_missing_shard(tmp_path):
  writer = feature_cache.CacheWriter(tmp_path / "half", fakes.plan())
  with pytest.raises(InputError, match="lacks 21 of 21"):
    writer.finish()
  assert not (tmp_path / "half/manifest.json").exists()


def test_unfinished_cache_of_another_plan(tmp_path):
  fakes.write_cache(tmp_path / "half", fakes.plan(), finish=False)
  with pytest.raises(InputError, match="another teacher"):
    feature_cache.CacheWriter(tmp_path / "half", fakes.plan(teacher="huge"))


def test_a_folder_that_holds_other_things(tmp_path):
  (tmp_path / "thesis.tex").write_text("x")
  with pytest.raises(InputError, match=r"thesis.tex"):
    feature_cache.CacheWriter(tmp_path, fakes.plan())
  assert contents(tmp_path) == {"thesis.tex": b"x"}


def test_continued_cache_is_byte_identical(folder, tmp_path):
  """Stops after every number of shards in turn; the same bytes come out."""
  plan, other = fakes.plan(), tmp_path / "stopped"
  features = fakes.features(plan, "train")
  for _ in range(3):
    writer = feature_cache.CacheWriter(other, plan)
    first, second = writer.pending("train")[:2]
    keys = feature_cache.PARTS[first.part]
    with writer.open_shard(first) as file:
      file.write({k: features[k][first.start : first.stop] for k in keys})
    with (
      pytest.raises(KeyboardInterrupt),
      writer.open_shard(second) as file,
    ):
      keys = feature_cache.PARTS[second.part]
      file.write({k: features[k][second.start :][:1] for k in keys})
      raise KeyboardInterrupt
    assert not list(other.rglob("*.tmp"))
  finished = {path.name for path in (other / "train").iterdir()}
  assert len(finished) == 3
  stamps = {n: (other / "train" / n).stat().st_mtime_ns for n in finished}
  fakes.write_cache(other, plan)
  for name, stamp in stamps.items():
    assert (other / "train" / name).stat().st_mtime_ns == stamp
  assert contents(other) == contents(folder)


def test_leftover_of_a_killed_process_is_overwritten(folder, tmp_path):
  other = tmp_path / "killed"
  shard = fakes.plan().shards("train", "student")[0]
  path = other / (shard.path + ".tmp")
  feature_cache.CacheWriter(other, fakes.plan())
  path.parent.mkdir()
  path.write_bytes(b"half a record")
  fakes.write_cache(other, fakes.plan())
  assert contents(other) == contents(folder)


def test_processes_share_the_shards(tmp_path):
  plan = fakes.plan()

  def pending(index):
    return feature_cache.CacheWriter(
      tmp_path, plan, process_index=index, process_count=2
    ).pending("train")

  first = pending(0)  # the others wait for it to make the folder
  shards = pending(1) + first
  assert sorted(s.path for s in shards) == sorted(
    s.path for part in plan.splits[0].parts for s in plan.shards("train", part)
  )
  assert {s.number for s in shards[:3]} == {1}


def test_shard_with_too_few_examples_gets_no_name(tmp_path):
  plan = fakes.plan()
  writer = feature_cache.CacheWriter(tmp_path / "cache", plan)
  shard = writer.pending("dev")[0]
  values = fakes.features(plan, "dev")
  with (
    pytest.raises(ValueError, match="4 examples belong"),
    writer.open_shard(shard) as file,
  ):
    file.write({k: values[k][:3] for k in feature_cache.PARTS[shard.part]})
  assert list((tmp_path / "cache/dev").iterdir()) == []


def test_wrong_shape_or_dtype_is_refused(tmp_path):
  plan = fakes.plan()
  writer = feature_cache.CacheWriter(tmp_path / "cache", plan)
  shard = writer.pending("dev")[0]
  wrong = np.zeros((4, 5, 8), np.float32)
  with (
    pytest.raises(ValueError, match="student_tokens: float32"),
    writer.open_shard(shard) as file,
  ):
    file.write({schema.STUDENT_TOKENS: wrong})


def test_truncated_shard_is_named_on_opening_and_mended(folder):
  before = contents(folder)
  path = folder / "train/teacher-00001-of-00003.array_record"
  size = path.stat().st_size
  os.truncate(path, size // 2)
  with pytest.raises(InputError, match=f"{path.name} is {size // 2} bytes"):
    feature_cache.open_cache(folder)
  fakes.write_cache(folder, fakes.plan())
  assert contents(folder) == before


@pytest.mark.parametrize("keep", [0, 0.5, 0.9999])
def test_shard_truncated_after_opening_names_file_and_record(folder, keep):
  split = feature_cache.open_cache(folder).split("train")
  path = folder / "train/student-00001-of-00003.array_record"
  os.truncate(path, int(path.stat().st_size * keep))
  split.read(np.array([0, 1]))
  with pytest.raises(InputError, match=rf"{path.name}, record 1"):
    split.read(np.array([0, 5]))


def test_unreadable_manifest_and_labels(folder):
  (folder / "labels.npz").write_bytes(
    b"z" * (folder / "labels.npz").stat().st_size
  )
  with pytest.raises(InputError, match=r"labels.npz cannot be read"):
    feature_cache.open_cache(folder).labels()
  text = (folder / "manifest.json").read_text()
  (folder / "manifest.json").write_text(text[:100])
  with pytest.raises(InputError, match=r"manifest.json cannot be read"):
    feature_cache.open_cache(folder)


def test_verify_counts_and_finds_a_changed_byte(folder, capsys, monkeypatch):
  assert main(["--verify", str(folder)]) == 0
  assert "train 11" in capsys.readouterr().out
  path = folder / "dev/student-00000-of-00002.array_record"
  data = bytearray(path.read_bytes())
  at = data.index(fakes.features(fakes.plan(), "dev")["student_tokens"][0])
  data[at] ^= 1
  path.write_bytes(data)
  monkeypatch.setattr(sys, "argv", ["feature_cache", "--verify", str(folder)])
  with pytest.raises(SystemExit) as left:
    commands.start(main)
  assert left.value.code == 2
  error = capsys.readouterr().err
  assert path.name in error and "sha256" in error and "Remedy" in error


def test_verify_finds_values_that_are_not_finite(tmp_path, monkeypatch):
  values = fakes.features(fakes.plan(), "dev")
  values[schema.VERB_LOGITS][2, 1] = np.nan
  original = fakes.features
  monkeypatch.setattr(
    fakes, "features", lambda p, s: values if s == "dev" else original(p, s)
  )
  fakes.write_cache(tmp_path / "cache", fakes.plan())
  with pytest.raises(InputError, match="verb_logits has values that are not"):
    feature_cache.verify(tmp_path / "cache")


def test_plan_without_a_shape_is_refused():
  field = Field(schema.STUDENT_TOKENS, (5, 8), "bfloat16")
  with pytest.raises(InputError, match="'teacher' without the shape"):
    fakes.plan(fields=(field,))
  with pytest.raises(InputError, match="examples_per_shard is 0"):
    fakes.plan(examples_per_shard=0)


def big_plan():
  """Shards of 64 and 160 kB, so that a file size limit can hit one kind."""
  fields = dict((f.name, f) for f in fakes.plan().fields)
  fields[schema.TEACHER_TOKENS] = Field(
    schema.TEACHER_TOKENS, (50, 1000), "bfloat16"
  )
  return fakes.plan(fields=tuple(fields.values()))


def _flip(path, at, bit=1):
  data = bytearray(path.read_bytes())
  data[at] ^= bit
  path.write_bytes(data)


def _read_all(folder):
  """Everything that training, evaluation and the report read."""
  cache = feature_cache.open_cache(folder)
  found = {("labels", k): x for k, x in cache.labels().items()}
  for name in ("train", "dev"):
    split = cache.split(name)
    indices = np.arange(split.num_examples)
    found |= {(name, k): x for k, x in split.read(indices).items()}
    found[name, "names"] = np.array(split.names)
  return found


def _cut(folder, name):
  os.truncate(folder / name, (folder / name).stat().st_size - 2)


def _zero(folder, name):
  path = folder / name
  path.write_bytes(bytes(path.stat().st_size))


def _swap(one, other):
  """Exchanges two files, of any length."""
  a, b = one.read_bytes(), other.read_bytes()
  one.write_bytes(b)
  other.write_bytes(a)


_SHARD = "train/student-00000-of-00003.array_record"
_SWAPS = {
  "between splits": ("{0}/" + _SHARD, "{0}/dev/student-00000-of-00002{1}"),
  "in a split": ("{0}/" + _SHARD, "{0}/train/student-00001-of-00003{1}"),
  "of another cache": ("{0}/" + _SHARD, "{2}/" + _SHARD),
  "labels of another cache": ("{0}/labels.npz", "{2}/labels.npz"),
  "annotations": ("{0}/train/annotations.npz", "{2}/train/annotations.npz"),
}


@pytest.mark.parametrize("swap", _SWAPS.values(), ids=_SWAPS)
def test_files_that_change_places(folder, tmp_path, swap, monkeypatch):
  """Whole files with good checksums, of the same length."""
  other = tmp_path / "other"
  features, columns = fakes.features, fakes.columns
  monkeypatch.setattr(
    fakes,
    "features",
    lambda p, s: {k: x[::-1] for k, x in features(p, s).items()},
  )
  monkeypatch.setattr(
    fakes, "columns", lambda n: {k: x + 1 for k, x in columns(n).items()}
  )
  monkeypatch.setattr(np, "ones", lambda shape, dtype: np.zeros(shape, dtype))
  fakes.write_cache(other, fakes.plan())
  monkeypatch.undo()
  one, two = (
    pathlib.Path(name.format(folder, ".array_record", other)) for name in swap
  )
  if one.suffix == ".array_record":
    assert one.stat().st_size == two.stat().st_size
  _swap(one, two)
  with pytest.raises(InputError, match=one.name):
    _read_all(folder)


@pytest.mark.parametrize("harm", [_cut, _zero, lambda f, n: (f / n).unlink()])
@pytest.mark.parametrize(
  "name", [_SHARD, "labels.npz", "dev/annotations.npz", "manifest.json"]
)
def test_files_that_are_cut_wiped_or_gone(folder, name, harm):
  harm(folder, name)
  with pytest.raises(InputError, match=name.split("/")[-1]) as caught:
    _read_all(folder)
  assert "prepare" in caught.value.remedy


def test_a_flipped_bit_anywhere_is_seen_or_changes_nothing(tmp_path):
  """All of manifest, labels and annotations; of a shard what is not filler."""
  plan = fakes.plan(splits=(SplitPlan("train", 4, ("student",)),))
  monkey = fakes.features(plan, "train")
  assert monkey["student_tokens"].nbytes == 320
  folder = tmp_path / "cache"
  fakes.write_cache(
    folder,
    dataclasses.replace(
      plan, splits=(*plan.splits, SplitPlan("dev", 1, ("student",)))
    ),
  )
  before = _read_all(folder)
  seen = 0
  for path in sorted(folder.rglob("*")):
    if not path.is_file():
      continue
    data = path.read_bytes()
    places = np.flatnonzero(np.frombuffer(data, np.uint8))
    for at in places[:: max(1, len(places) // 30)]:
      _flip(path, at, 1 << int(at % 8))
      try:
        after = _read_all(folder)
      except InputError:
        seen += 1
      else:
        for key, value in before.items():
          np.testing.assert_array_equal(after[key], value, err_msg=f"{path}")
      path.write_bytes(data)
  assert seen > 80


def test_every_byte_of_a_record_counts_or_the_file_does():
  """A mark samples all bytes of a number, at any width."""
  record = np.zeros(577 * 1024, np.float32)
  plain = shard.mark(record.tobytes())
  record += 1e-3 * np.arange(len(record))
  record = record.astype(ml_dtypes.bfloat16).astype(np.float32)
  assert shard.mark(record.tobytes()) != plain
  assert len(plain) == shard.MARK_DIGITS


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda m: m.update(format=2), "format 2, not 3; an older format"),
    (lambda m: m.update(format=4), "format 4, not 3; a newer version"),
    (lambda m: m.update(format="3"), "names no format"),
    (lambda m: m.pop("files"), "files is missing"),
    (lambda m: m.update(files=[]), "files is"),
    (lambda m: m["files"].clear(), "doesn't list 21 files|digest"),
    (lambda m: m["files"]["labels.npz"].update(bytes="9"), "bytes is '9'"),
    (lambda m: m["files"]["labels.npz"].update(bytes=9), "digest differs"),
    (lambda m: m["plan"].update(teacher="t"), "digest differs"),
    (lambda m: m["plan"].update(teacher=7), "digest|teacher is 7"),
  ],
)
def test_a_manifest_of_another_shape(folder, change, words):
  path = folder / "manifest.json"
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))
  for use in (
    lambda: feature_cache.open_cache(folder),
    lambda: feature_cache.is_complete(folder, fakes.plan()),
    lambda: feature_cache.CacheWriter(folder, fakes.plan()),
  ):
    with pytest.raises(
      InputError, match=rf"manifest.json.*({words})"
    ) as caught:
      use()
    assert "prepare it again" in caught.value.remedy


@pytest.mark.parametrize("text", ["[]", "null", "3", "[" * 100_000, "\ufeff{}"])
def test_json_that_is_no_manifest(folder, text):
  for name in ("manifest.json", "building/plan.json"):
    if name != "manifest.json":
      (folder / "manifest.json").unlink()
      (folder / "building").mkdir()
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=name):
      feature_cache.CacheWriter(folder, fakes.plan())


@pytest.mark.parametrize("text", ["", "[]", '{"bytes": "1", "sha256": ""}'])
def test_a_damaged_note_is_named(tmp_path, text):
  fakes.write_cache(tmp_path / "c", fakes.plan(), finish=False)
  note = tmp_path / "c/building/labels.npz.json"
  note.write_text(text)
  with pytest.raises(InputError, match=r"labels.npz.json") as caught:
    fakes.write_cache(tmp_path / "c", fakes.plan())
  assert f"delete {note}" in caught.value.remedy
  note.unlink()
  fakes.write_cache(tmp_path / "c", fakes.plan())


def test_small_damaged_files_are_mended(folder):
  before = contents(folder)
  _flip(folder / "train/annotations.npz", 500)
  assert not feature_cache.is_complete(folder, fakes.plan())
  fakes.write_cache(folder, fakes.plan())
  assert contents(folder) == before


def test_two_runs_in_one_folder(folder):
  with feature_cache.alone(folder):
    with (
      pytest.raises(InputError, match=r"in use by process .*preparing this"),
      feature_cache.alone(folder),
    ):
      pass
    fakes.write_cache(folder, fakes.plan())  # the lock is no foreign file
  assert not [p for p in folder.iterdir() if lock.is_lock(p.name)]
  (folder / "file").write_text("x")
  with (
    pytest.raises(InputError, match="cannot be made"),
    feature_cache.alone(folder / "file"),
  ):
    pass


def test_what_a_killed_run_left_is_cleaned_at_the_next_start(tmp_path):
  fakes.write_cache(tmp_path / "c", fakes.plan(), finish=False)
  for name in (
    "train/student-00000-of-00003.array_record.tmp",
    ".made_from.77.tmp.json",
    "building/plan.json.tmp",
  ):
    (tmp_path / "c" / name).write_text("half")
  feature_cache.CacheWriter(tmp_path / "c", fakes.plan())
  assert not [p for p in (tmp_path / "c").rglob("*") if ".tmp" in p.name]


_UNDER_A_LIMIT = """
  import resource, signal, sys
  from tests.cache import test_feature_cache
  from tests.fakes import fakes
  from input_pipeline.io.errors import InputError
  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
  try:
    fakes.write_cache(sys.argv[1], test_feature_cache.big_plan())
  except InputError as error:
    print(error)
    sys.exit(3)
"""


def test_full_disk_keeps_finished_shards_then_finishes(tmp_path):
  folder, plan = tmp_path / "cache", big_plan()
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(_UNDER_A_LIMIT), str(folder)],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 3, done.stderr
  assert str(folder / "train") in done.stdout
  assert "no space left" in done.stdout
  # Two full teacher shards, one of 3 examples, all zero-shot and dev ones.
  left = sum(
    (shard.stop - shard.start) * plan.record_bytes(shard.part)
    for shard in plan.all_shards()
    if not (folder / shard.path).exists()
  )
  assert f"{left / 1e6:,.1f} MB are still to write" in done.stdout
  assert "Remedy: free space" in done.stdout
  written = {path.name for path in (folder / "train").iterdir()}
  assert written == {
    "annotations.npz",
    *(f"student-0000{i}-of-00003.array_record" for i in range(3)),
  }
  with pytest.raises(InputError, match="unfinished"):
    feature_cache.open_cache(folder)
  fakes.write_cache(folder, plan)
  fakes.write_cache(tmp_path / "whole", plan)
  assert contents(folder) == contents(tmp_path / "whole")


def test_too_little_space_is_said_before_any_work(tmp_path):
  split = dataclasses.replace(fakes.plan().splits[0], num_examples=10**15)
  plan = fakes.plan(splits=(split,), examples_per_shard=10**15)
  with pytest.raises(InputError, match=r"no space left.*still to write"):
    feature_cache.CacheWriter(tmp_path / "cache", plan)
