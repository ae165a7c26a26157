"""Damage to a prepared dataset gives one message, never a wrong record."""

import json
import pathlib
import resource
import shutil

import numpy as np
import pytest

from input_pipeline.io import builds, lock
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import __main__ as command
from input_pipeline.ov_swig import builder, folder, layout
from tests.fixtures import swig_fixture


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> pathlib.Path:
  """A folder, `swig`, and what it was built to, `data`."""
  root = tmp_path_factory.mktemp("built")
  swig_fixture.write(root / "swig", per_verb=1)
  builder.prepare(root / "swig", root / "data")
  return root


@pytest.fixture
def root(built, tmp_path) -> pathlib.Path:
  return pathlib.Path(shutil.copytree(built, tmp_path / "root"))


def _dataset(root) -> pathlib.Path:
  (found,) = (root / "data" / "ov_swig").glob("swig_*/2*")
  return found


def _read(root) -> str:
  """All that can be read, as one text."""
  dataset = builder.prepare(root / "swig", root / "data")
  found = [dataset.fingerprint, dataset.broken]
  for name in layout.SPLITS:
    split = dataset.split(name)
    rows = range(len(split))
    columns = split.annotations()
    found += [split.names, {key: columns[key].tolist() for key in columns}]
    found += [np.asarray(split.image(row)).tobytes() for row in rows]
    found += [split.rationales(row) for row in rows]
  return repr(found)


FILES = (
  "dataset_info.json",
  "features.json",
  "metadata.json",
  "ov_swig-train.array_record-00000-of-00001",
  "ov_swig-dev.array_record-00000-of-00001",
)
CONTENTS = {
  "empty": lambda content: b"",
  "cut off": lambda content: content[: len(content) // 2],
  "null": lambda content: b"null",
  "a list": lambda content: b"[1]",
  "an object": lambda content: b"{}",
  "deep": lambda content: b"[" * 10**5,
  "digits": lambda content: b'{"a": %s}' % (b"1" * 5000),
  "no text": lambda content: b"\xff\xfe\x00",
  "another end": lambda content: content[:-1] + b"!",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", [*CONTENTS, "missing", "a folder"])
def test_damaged_files_are_named(root, name, kind):
  path = _dataset(root) / name
  content = path.read_bytes()
  path.unlink()
  if kind == "a folder":
    path.mkdir()
  elif kind != "missing":
    path.write_bytes(CONTENTS[kind](content))
  with pytest.raises(InputError) as error:
    _read(root)
  assert name in error.value.problem
  assert f"delete {_dataset(root)}" in error.value.remedy
  assert str(error.value).count("Remedy:") == 1
  shutil.rmtree(_dataset(root))
  _read(root)  # as the remedy says


@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_are_told_or_change_nothing(root, name):
  path = _dataset(root) / name
  content, whole = path.read_bytes(), _read(root)
  rng = np.random.default_rng(0)
  told = 0
  for place in rng.integers(0, len(content), 12):
    flipped = bytearray(content)
    flipped[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(flipped)
    try:
      assert _read(root) == whole
    except InputError as error:
      told += 1
      assert str(_dataset(root)) in error.problem
  # What TFDS says for people, such as the citation, may change.
  assert told == 12 or name == "dataset_info.json"


def _edit(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def _shorter(info):
  info["splits"][0]["shardLengths"] = ["4"]


def _without_a_split(info):
  del info["splits"][1]


def _other_template(info):
  info["splits"][0]["filepathTemplate"] = "{DATASET}-{SPLIT}-{SHARD_X_OF_Y}"


def _odd_template(info):
  info["splits"][0]["filepathTemplate"] = "{SPLIT}.{WHAT}"


def _other_types(info):
  info["splits"] = {"train": 5}


@pytest.mark.parametrize(
  "change",
  [
    _shorter,
    _without_a_split,
    _other_template,
    _odd_template,
    _other_types,
  ],
)
def test_wrong_dataset_info_is_refused(root, change):
  _edit(_dataset(root) / "dataset_info.json", change)
  with pytest.raises(InputError, match=r"dataset_info\.json"):
    _read(root)


def test_a_changed_number_in_the_metadata_is_refused(root):
  def change(metadata):
    metadata["statistics"]["train"]["images"] += 1

  _edit(_dataset(root) / "metadata.json", change)
  with pytest.raises(InputError, match=r"metadata\.json is damaged"):
    _read(root)


def test_a_shard_of_another_build_is_refused(root, tmp_path):
  """It is whole, so that array_record itself takes it."""
  other = tmp_path / "other"
  swig_fixture.write(other / "swig", per_verb=1, seed=1)
  builder.prepare(other / "swig", other / "data")
  shutil.copy(_dataset(other) / FILES[3], _dataset(root) / FILES[3])
  with pytest.raises(InputError, match="split 'train' cannot be read"):
    _read(root)


def test_a_dataset_of_another_folder_is_refused(root, tmp_path):
  other = tmp_path / "other"
  swig_fixture.write(other / "swig", per_verb=1, seed=1)
  builder.prepare(other / "swig", other / "data")
  taken = _dataset(root)
  shutil.rmtree(taken)
  shutil.copytree(_dataset(other), taken)
  with pytest.raises(InputError, match="was built from another folder"):
    _read(root)


def test_unchanged_files_are_read_once(root, monkeypatch):
  _read(root)

  def never(*_):
    raise AssertionError("read again")

  monkeypatch.setattr(builds.hashlib, "file_digest", never)
  builds.check_shards(
    builder.prepare(root / "swig", root / "data").builder, "dev"
  )


@pytest.mark.parametrize("limit", [2000, 30_000, 100_000])
def test_full_disk_while_a_dataset_is_built(tmp_path, capsys, limit):
  swig_fixture.write(tmp_path / "swig", per_verb=1)
  arguments = ["--build", str(tmp_path / "swig")]
  arguments += ["--data-dir", str(tmp_path / "data")]
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
  try:
    assert command.main(arguments) == 1
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  said = capsys.readouterr().err
  assert "has no space for the dataset" in said and "Remedy: free space" in said
  assert not list((tmp_path / "data").rglob("*array_record*"))
  assert command.main(arguments) == 0
  _read(tmp_path)


def test_one_process_builds_at_a_time_and_sweeps_after_the_dead(root):
  config = _dataset(root).parent
  version = _dataset(root).name
  (config / f"incomplete.ABCDEF_{version}").mkdir()
  shutil.rmtree(config / version)
  with (
    lock.holding(config, "building"),
    pytest.raises(InputError, match="process"),
  ):
    builder.prepare(root / "swig", root / "data")
  builder.prepare(root / "swig", root / "data")
  assert [path.name for path in config.iterdir()] == [version]


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/tfds"])
def test_where_nothing_can_be_written(tmp_path, monkeypatch, capsys, where):
  swig_fixture.write(tmp_path / "swig", per_verb=1)
  (tmp_path / "file").write_text("")

  def never(*_, **__):
    raise AssertionError("the folder is read")

  monkeypatch.setattr(folder, "read_folder", never)
  arguments = ["--build", str(tmp_path / "swig")]
  arguments += ["--data-dir", str(tmp_path / where)]
  assert command.main(arguments) == 1
  said = capsys.readouterr().err
  assert "datasets cannot be written there" in said and "--data-dir" in said


@pytest.mark.parametrize("where", ["file/below", "/proc/report", "."])
def test_a_report_that_cannot_be_written(tmp_path, monkeypatch, capsys, where):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  (tmp_path / "file").write_text("")
  from input_pipeline.ov_swig import check

  monkeypatch.setattr(check, "check_records", None)  # before anything long
  path = tmp_path / where
  assert command.main(["--check", str(folder), f"--report={path}"]) == 1
  assert "--report" in capsys.readouterr().err


@pytest.mark.parametrize(
  "arguments",
  [
    ["--check", "DIR", "--skip-broken"],
    ["--check", "DIR", "--data-dir=x"],
    ["--build", "DIR", "--records-only"],
    ["--build", "DIR", "--report=x"],
  ],
)
def test_arguments_that_would_do_nothing_are_refused(capsys, arguments):
  with pytest.raises(SystemExit) as exit_:
    command.main(arguments)
  assert exit_.value.code == 2
  assert "does nothing for" in capsys.readouterr().err
