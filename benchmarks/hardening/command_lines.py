"""The commands, as a user types them, and their products.

All run in a folder with the same relative names, so that results of two runs
can be compared byte for byte.
"""

import dataclasses
import fnmatch
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

_PLACES = {
  "dataset.folder": "world",
  "teacher.student_encoder": "foundation/student_clip",
  "teacher.teacher_encoder": "foundation/teacher_blip2",
  "teacher.text_encoder": "foundation/teacher_clip",
  "teacher.cache": "cache",
}


@dataclasses.dataclass(frozen=True)
class Command:
  """One command.

  Attributes:
    arguments: the arguments of `python`.
    products: patterns of the files it makes, below the folder; 'stdout' is
      what it prints, and a folder of checkpoints means the arrays of the last.
    once: whether it refuses to replace its products.
  """

  arguments: tuple[str, ...]
  products: tuple[str, ...]
  once: bool = False

  @property
  def typed(self) -> str:
    return " ".join(("python", *self.arguments))


def _main(mode: str, *more: str) -> tuple[str, ...]:
  return (
    *("-m", "mipd_jax.main", "--config=configs/synthetic.py:debug"),
    *("--workdir=work", f"--mode={mode}"),
    *(f"--config.{name}={value}" for name, value in _PLACES.items()),
    *more,
  )


_STATES = ("work/checkpoints", "work/best")
_CACHE = ("cache/*.npz", "cache/*.json", "cache/*/*")
_RESULTS = ("work/results.json", "work/results.md")
COMMANDS = {
  "all": Command(
    _main("all"), (*_CACHE, *_STATES, *_RESULTS, "work/report.html")
  ),
  "prepare": Command(_main("prepare"), _CACHE),
  "train": Command(_main("train"), _STATES),
  "eval": Command(_main("eval"), _RESULTS),
  "report": Command(_main("report"), ("work/report.html",)),
  "predict": Command(
    _main("predict", "--images=photos", "--out=out"),
    ("out/predictions.jsonl",),
  ),
  "words": Command(
    _main(
      "predict", "--images=photos", "--out=out2", "--vocabulary=words.yaml"
    ),
    ("out2/predictions.jsonl",),
  ),
  "export": Command(
    ("-m", "mipd_jax.export", "--workdir=work", "--out=again"),
    ("again/*",),
    once=True,
  ),
  "exported": Command(("exported/predict.py", "photos/1.jpg"), ("stdout",)),
  "check": Command(
    ("-m", "input_pipeline.ov_swig", "--check", "world"), ("stdout",)
  ),
  "metrics.swig": Command(
    (
      *("-m", "mipd_jax.metrics.swig"),
      "--predictions=scored/predictions.json",
      "--annotations=world/SWiG_jsons/test.json",
    ),
    ("stdout",),
  ),
  "metrics.hico_det": Command(
    (
      *("-m", "mipd_jax.metrics.hico_det", "--split=UV"),
      "--predictions=scored/pairs.json",
      "--annotations=scored/test_hico.json",
    ),
    ("stdout",),
  ),
}
# A note of sizes and times; the files that it guards are compared themselves.
_NOT_COMPARED = ("cache/made_from.json",)


def products(
  command: Command, folder: pathlib.Path, stdout: str
) -> dict[str, str]:
  """The products of a command: name -> digest. Needs jax; starts threads.

  Returns:
    One entry for each file, and for each folder of checkpoints.
  """
  digests = {}
  files = [
    str(path.relative_to(folder))
    for path in sorted(folder.rglob("*"))
    if path.is_file() and not path.is_symlink()
  ]
  for pattern in command.products:
    if pattern == "stdout":
      digests["stdout"] = _digest(stdout.encode())
    elif pattern in _STATES:
      digests[pattern] = _state(folder / pattern)
    else:
      for name in files:
        if _matches(name, pattern) and name not in _NOT_COMPARED:
          digests[name] = _digest(_content(folder / name))
  return digests


def _content(path: pathlib.Path) -> bytes:
  """The bytes of a file; for a cache's manifest, only what was encoded.

  Its plan has a digest of the folder's files. That changes if index files are
  deleted, although the derived names and numbers are the same; the digests of
  the vocabulary and of all shards cover these.
  """
  content = path.read_bytes()
  if path.name != "manifest.json":
    return content
  try:
    data = json.loads(content)
    for key in ("digest", "plan_hash"):
      del data[key]
    del data["plan"]["dataset"]
  except (ValueError, LookupError, TypeError):
    return content
  return json.dumps(data).encode()


def _matches(name: str, pattern: str) -> bool:
  same_depth = name.count("/") == pattern.count("/")
  hidden = os.path.basename(name).startswith(".")
  return same_depth and not hidden and fnmatch.fnmatch(name, pattern)


def _state(folder: pathlib.Path) -> str:
  """Digest of step and arrays of the last checkpoint, not of its files."""
  steps = [int(x.name) for x in folder.glob("*") if x.name.isdigit()]
  if not steps:
    return "none"
  try:
    return f"{max(steps)}:{_arrays(folder / str(max(steps)) / 'default')}"
  except Exception as error:  # Orbax raises anything for a damaged one
    return f"{max(steps)}: unreadable, {type(error).__name__}"


def _arrays(path: pathlib.Path) -> str:
  import jax
  import numpy as np
  import orbax.checkpoint as ocp

  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    tree = reader.restore(path.absolute())
  digest = hashlib.sha256()
  for place, leaf in sorted(
    (jax.tree_util.keystr(place), np.asarray(leaf))
    for place, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ):
    digest.update(f"{place} {leaf.dtype} {leaf.shape}".encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()[:16]


def differing(
  wanted: Mapping[str, str], actual: Mapping[str, str], untouched: set[str]
) -> list[str]:
  """Names of the products that differ.

  Args:
    wanted: products of the undisturbed command.
    actual: products of the disturbed one.
    untouched: files that are still as the damage left them, so not written by
      this command. Other cases read them.
  """
  names = []
  for name in sorted(wanted.keys() | actual.keys()):
    still = any(
      file == name or file.startswith(name + "/") for file in untouched
    )
    if not still and wanted.get(name) != actual.get(name):
      names.append(name)
  return names


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]


def write_inputs(folder: pathlib.Path) -> None:
  """Adds photographs, words and predictions to score to a finished run."""
  photos, scored = folder / "photos", folder / "scored"
  photos.mkdir()
  scored.mkdir()
  records = json.loads((folder / "world/SWiG_jsons/test.json").read_text())
  for number, name in enumerate(sorted(records)[:3], 1):
    image = (folder / "world/images_512" / name).read_bytes()
    (photos / f"{number}.jpg").write_bytes(image)
  (folder / "words.yaml").write_text(
    "verbs:\n  juggling:\n    roles: [agent, item, place]\n"
    "    definition: keep several objects in the air\n"
    "    abstract: an AGENT juggles an ITEM at a PLACE\n"
    "  jumping:\n    roles: [agent, place]\n"
    "    abstract: an AGENT jumps at a PLACE\n"
    "nouns: [man, club, stage]\n"
  )
  _write(scored / "predictions.json", _situations(records))
  pairs, labels = _pairs()
  _write(scored / "pairs.json", pairs)
  _write(scored / "test_hico.json", labels)


def _situations(records: Mapping[str, dict]) -> dict:
  """Predictions that are half right: the true verb is first or second."""
  verbs = sorted({record["verb"] for record in records.values()})
  frames = {record["verb"]: record for record in records.values()}
  predictions = {}
  for place, (name, record) in enumerate(sorted(records.items())):
    others = [verb for verb in verbs if verb != record["verb"]][:4]
    ranked = [record["verb"], *others]
    if place % 2:
      ranked[:2] = ranked[1::-1]
    predictions[name] = {
      "verbs": ranked,
      "frames": {
        verb: _frame(record if verb == record["verb"] else frames[verb])
        for verb in ranked
      },
    }
  return predictions


def _frame(record: dict) -> dict:
  return {
    role: {
      "noun": record["frames"][0][role],
      "box": None if box[0] < 0 else box,
    }
    for role, box in record["bb"].items()
  }


def _pairs() -> tuple[list, list]:
  """Predictions and annotations of three images of persons and bicycles."""
  person, bicycle = [5, 3, 31, 41], [1, 21, 41, 48]
  pairs, labels = [], []
  for number in (1, 2, 3):
    name = f"HICO_test2015_0000000{number}.jpg"
    pairs.append(
      {
        "file_name": name,
        "human_boxes": [[4, 2, 30, 40], [8, 2, 30, 44]],
        "object_boxes": [[0, 20, 40, 47], [0, 20, 38, 47]],
        "hoi": ["ride bicycle", "hold bicycle"],
        "scores": [0.9 / number, 0.4],
      }
    )
    labels.append(
      {
        "file_name": name,
        "annotations": [
          {"bbox": person, "category_id": 1},
          {"bbox": bicycle, "category_id": 2},
        ],
        "hoi_annotation": [
          {"subject_id": 0, "object_id": 1, "category_id": verb}
          for verb in (77, 37)
        ],
      }
    )
  return pairs, labels


def _write(path: pathlib.Path, content: object) -> None:
  path.write_text(json.dumps(content, indent=1) + "\n")
