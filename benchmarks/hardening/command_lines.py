"""The commands, as a user types them, and what each of them makes.

All run in a folder that holds everything by the same relative names, so that
one run's results can be compared with another's byte for byte.
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
    arguments: what follows `python`.
    products: patterns of what it makes, below the folder; 'stdout' is what
      it prints, and a folder of checkpoints stands for the arrays of the last.
    once: whether it refuses to make what is there.
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
# A note of sizes and times; what it guards is compared itself.
_NOT_COMPARED = ("cache/made_from.json",)


def products(
  command: Command, folder: pathlib.Path, stdout: str
) -> dict[str, str]:
  """What a command made: name -> digest. Needs jax; starts threads.

  Returns:
    One entry for each file, and for each folder of checkpoints.
  """
  found = {}
  files = [
    str(path.relative_to(folder))
    for path in sorted(folder.rglob("*"))
    if path.is_file() and not path.is_symlink()
  ]
  for pattern in command.products:
    if pattern == "stdout":
      found["stdout"] = _digest(stdout.encode())
    elif pattern in _STATES:
      found[pattern] = _state(folder / pattern)
    else:
      for name in files:
        if _matches(name, pattern) and name not in _NOT_COMPARED:
          found[name] = _digest(_content(folder / name))
  return found


def _content(path: pathlib.Path) -> bytes:
  """The bytes of a file; of a cache's manifest what was encoded.

  Its plan names the folder's files by a digest. A folder whose index files
  were deleted is another one, though the same names and numbers are derived;
  what is derived stands in the vocabulary and in the digests of all shards.
  """
  content = path.read_bytes()
  if path.name != "manifest.json":
    return content
  try:
    found = json.loads(content)
    for key in ("digest", "plan_hash"):
      del found[key]
    del found["plan"]["dataset"]
  except (ValueError, LookupError, TypeError):
    return content
  return json.dumps(found).encode()


def _matches(name: str, pattern: str) -> bool:
  same_depth = name.count("/") == pattern.count("/")
  hidden = os.path.basename(name).startswith(".")
  return same_depth and not hidden and fnmatch.fnmatch(name, pattern)


def _state(folder: pathlib.Path) -> str:
  """Step and arrays of the last checkpoint, not how they lie on the disk."""
  steps = [int(x.name) for x in folder.glob("*") if x.name.isdigit()]
  if not steps:
    return "none"
  try:
    return f"{max(steps)}:{_arrays(folder / str(max(steps)) / 'default')}"
  except Exception as error:  # whatever Orbax says of a damaged one
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
  wanted: Mapping[str, str], found: Mapping[str, str], untouched: set[str]
) -> list[str]:
  """Products that are not as they should be.

  Args:
    wanted: of the undisturbed command.
    found: after the disturbed one.
    untouched: files that are still as the damage left them: no work of this
      command. Their readers are cases of their own.
  """
  names = []
  for name in sorted(wanted.keys() | found.keys()):
    still = any(
      file == name or file.startswith(name + "/") for file in untouched
    )
    if not still and wanted.get(name) != found.get(name):
      names.append(name)
  return names


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]


def write_inputs(folder: pathlib.Path) -> None:
  """Beside a finished run: photographs, words, predictions to be scored."""
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
  """Half right: the true verb is first or second, the first annotator's."""
  verbs = sorted({record["verb"] for record in records.values()})
  frames = {record["verb"]: record for record in records.values()}
  found = {}
  for place, (name, record) in enumerate(sorted(records.items())):
    others = [verb for verb in verbs if verb != record["verb"]][:4]
    ranked = [record["verb"], *others]
    if place % 2:
      ranked[:2] = ranked[1::-1]
    found[name] = {
      "verbs": ranked,
      "frames": {
        verb: _frame(record if verb == record["verb"] else frames[verb])
        for verb in ranked
      },
    }
  return found


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
