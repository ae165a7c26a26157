"""A folder as large as SWiG, and the figures of docs/ov_swig.md from it.

  python -m benchmarks.swig_sized --vocabulary=DIR --out=DIR [--share=1.0]
    [--docs=docs] [--keep]

DIR of the vocabulary holds what SWiG's release has besides boxes and images:
imsitu_space.json, the index files, image_splits.json (names by split) and
verb_role_noun_support_train.json (nouns by verb and role, all that training
has). The folder that is written has SWiG's 126,102 image names, frames with
real nouns (every noun of every verb's role occurs in training), drawn boxes,
and a few tiny pictures under many names. Then every command a user has is run
on it, each in its own process, for its time and its peak of memory.

Writes docs/ov_swig.json and fills docs/ov_swig.md between its markers:

  <!-- begin docs/ov_swig.json --> ... <!-- end docs/ov_swig.json -->
"""

import argparse
import io
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import figures
from input_pipeline import atomic, layout, vocabulary
from input_pipeline.errors import InputError
from input_pipeline.progress import Progress
from input_pipeline.schema import ANNOTATORS

IMAGE_NAMES = "image_splits.json"
SUPPORT = "verb_role_noun_support_train.json"
# A file may have 65,000 names on ext4, fewer elsewhere.
_PICTURES = 512
_SIDES = (24, 64)
_UNGROUNDED = 0.3
_PART = re.compile(
  r"(<!-- begin docs/ov_swig\.json -->).*?(<!-- end docs/ov_swig\.json -->)",
  re.DOTALL,
)


class Maker:
  """Records with real names, frames and nouns, and drawn boxes.

  Args:
    source: the vocabulary's folder.
    share: of the image names of each split to take.
    seed: of boxes and pictures.
  """

  def __init__(self, source: pathlib.Path, share: float = 1.0, seed: int = 0):
    read = vocabulary.read_json
    space = read(source / layout.SPACE_FILE)
    self.source = source
    self._frames = {v: tuple(e["order"]) for v, e in space["verbs"].items()}
    names = read(source / IMAGE_NAMES)
    self.names = {
      split: names[split][: max(1, round(share * len(names[split])))]
      for split in layout.SPLITS
    }
    support = read(source / SUPPORT)
    self._nouns: dict[tuple[str, str], Iterator[str]] = {
      (verb, role): itertools.cycle(nouns)
      for verb, roles in support.items()
      for role, nouns in roles.items()
    }
    self._rng = np.random.default_rng(seed)
    sides = self._rng.integers(*_SIDES, (_PICTURES, 2))
    self._sizes = [(int(height), int(width)) for height, width in sides]

  def records(self, split: str) -> dict[str, dict[str, Any]]:
    """Content of a split's JSON; training gives every noun its turn."""
    return {name: self._record(name) for name in self.names[split]}

  def picture(self, number: int) -> bytes:
    """One of the tiny JPEGs."""
    height, width = self._sizes[number]
    coarse = self._rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()

  def _record(self, name: str) -> dict[str, Any]:
    verb = name.rpartition("_")[0]
    height, width = self._sizes[number_of(name)]
    frame = self._frames[verb]
    frames = [
      {role: next(self._nouns[verb, role]) for role in frame}
      for _ in range(ANNOTATORS)
    ]
    boxes = {role: self._box(height, width) for role in frame}
    return {
      "verb": verb,
      "height": height,
      "width": width,
      "bb": boxes,
      "frames": frames,
    }

  def _box(self, height: int, width: int) -> list[int]:
    if self._rng.random() < _UNGROUNDED:
      return [-1, -1, -1, -1]
    x1, y1 = self._rng.integers(0, (width - 1, height - 1))
    x2, y2 = self._rng.integers((x1 + 1, y1 + 1), (width + 1, height + 1))
    return [int(v) for v in (x1, y1, x2, y2)]


def number_of(name: str) -> int:
  """Which picture an image name is given."""
  return zlib.crc32(name.encode()) % _PICTURES


def make(
  source: pathlib.Path, out: pathlib.Path, share: float = 1.0
) -> dict[str, int]:
  """Writes the folder; returns the number of images by split.

  Raises:
    InputError: `out` exists, or the vocabulary lacks a file.
  """
  if out.exists():
    raise InputError(f"{out} exists already", "give another --out")
  maker = Maker(source, share)
  jsons, images = out / layout.JSONS_FOLDER, out / layout.IMAGES_FOLDER
  jsons.mkdir(parents=True)
  images.mkdir()
  index_files = (layout.VERB_FILE, layout.ROLE_FILE, layout.NOUN_FILE)
  for name in (layout.SPACE_FILE, *index_files):
    (jsons / name).write_bytes((source / name).read_bytes())
  for split in layout.SPLITS:
    (jsons / f"{split}.json").write_text(json.dumps(maker.records(split)))
  pictures = out / "pictures"
  pictures.mkdir()
  for number in range(_PICTURES):
    (pictures / f"{number}.jpg").write_bytes(maker.picture(number))
  total = sum(map(len, maker.names.values()))
  with Progress("write", total, "images") as progress:
    for name in itertools.chain.from_iterable(maker.names.values()):
      os.link(pictures / f"{number_of(name)}.jpg", images / name)
      progress.advance()
  return {split: len(names) for split, names in maker.names.items()}


def timed(*arguments: str) -> tuple[dict[str, Any], str]:
  """Runs a module in a process of its own.

  Returns:
    'seconds', 'peak_mb' of its memory and its 'code'; what it printed.
  """
  start = time.perf_counter()
  process = subprocess.Popen(
    [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True
  )
  printed = process.stdout.read()
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  return {
    "seconds": time.perf_counter() - start,
    "peak_mb": usage.ru_maxrss / 1024,
    "code": process.returncode,
  }, printed


def run(
  source: pathlib.Path, out: pathlib.Path, share: float
) -> dict[str, Any]:
  """Makes the folder and runs everything on it; the content of the figures."""
  start = time.perf_counter()
  images = make(source, out, share)
  stages = {"write the folder": {"seconds": time.perf_counter() - start}}
  builder = ("input_pipeline.ov_swig",)
  report = out / "report.json"
  folder, data = str(out), str(out / "tfds")
  stages["split maker"], _ = timed(
    "input_pipeline.split_maker", folder, "--unseen=51", "--rare=101"
  )
  stages["check, records"], _ = timed(
    *builder, "--check", folder, "--records-only", f"--report={report}"
  )
  stages["check, all images"], _ = timed(
    *builder, "--check", folder, f"--report={report}"
  )
  found = json.loads(report.read_text())
  stages["build"], _ = timed(*builder, "--build", folder, "--data-dir", data)
  stages["open what is built"], _ = timed(
    *builder, "--build", folder, "--data-dir", data
  )
  stages["stream"], line = timed(
    "benchmarks.input", f"--folder={folder}", f"--data-dir={data}"
  )
  wrong = {name: s["code"] for name, s in stages.items() if s.get("code")}
  if wrong or found["problems"]:
    raise InputError(
      f"stages failed: {wrong}, problems: {found['problems'][:3]}",
      "look at what they printed above",
    )
  return {
    "command": "python -m benchmarks.swig_sized",
    "cores": os.cpu_count(),
    "images": images,
    "groups": found["images"],
    "verbs": found["facts"]["groups"],
    "index_files": found["facts"]["index_files"],
    "swig": found["facts"]["swig"],
    "stages": stages,
    "stream": json.loads(line),
    "statistics": _statistics(pathlib.Path(data)),
  }


def _statistics(data: pathlib.Path) -> dict[str, Any]:
  (path,) = data.glob("ov_swig/*/*/metadata.json")
  return json.loads(path.read_text())["statistics"]


def markdown(found: dict[str, Any]) -> str:
  """The part of the data card that the figures make."""
  total = sum(found["images"].values())
  stream = found["stream"]
  parts = [
    f"{total:,} records with real names, frames and nouns and tiny pictures "
    f"({stream['kb_per_image']:.1f} kB), on {found['cores']} cores "
    f"(`{found['command']}`).",
    _rows(
      ["what", "time", "peak memory"],
      (
        [name, _seconds(stage["seconds"]), _megabytes(stage.get("peak_mb"))]
        for name, stage in found["stages"].items()
        if name != "stream"
      ),
    ),
    _rows(
      ["stream", "images/s", "MB/s"],
      [
        [
          f"decoded, letterboxed to {' and '.join(map(str, stream['sizes']))}",
          f"{stream['decoded']['images_per_s']:,.0f}",
          f"{stream['decoded']['pixels_mb_per_s']:,.0f} (pixels)",
        ],
        [
          "annotations",
          f"{stream['annotations']['images_per_s']:,.0f}",
          f"{stream['annotations']['mb_per_s']:,.1f}",
        ],
      ],
    ),
    _rows(
      ["split", "seen", "rare", "unseen", "verbs", "roles with a box"],
      (
        [
          split,
          *(f"{n:,}" for n in numbers["by_group"].values()),
          str(numbers["verbs"]),
          f"{100 * numbers['grounded']:.0f} %",
        ]
        for split, numbers in found["statistics"].items()
      ),
    ),
    _rows(
      ["index file", "names as derived", "numbers as derived"],
      (
        [name, _yes(row["same_names"]), _yes(row["same_numbers"])]
        for name, row in found["index_files"].items()
      ),
    ),
  ]
  return "\n\n".join(parts) + "\n"


def filled(card: str, found: dict[str, Any]) -> str:
  """The data card with the present figures between its markers."""
  return _PART.sub(
    lambda match: f"{match[1]}\n\n{markdown(found)}\n{match[2]}", card
  )


def _rows(header: list[str], rows: Iterable[list[str]]) -> str:
  lines = [header, ["---"] * len(header), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _seconds(value: float) -> str:
  return f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"


def _megabytes(value: float | None) -> str:
  return "–" if value is None else f"{value:,.0f} MB"


def _yes(value: bool) -> str:
  return "yes" if value else "no"


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--vocabulary", required=True, type=pathlib.Path)
  parser.add_argument("--out", required=True, type=pathlib.Path)
  parser.add_argument("--share", type=float, default=1.0)
  parser.add_argument("--docs", type=pathlib.Path, default=figures.DOCS)
  parser.add_argument(
    "--keep", action="store_true", help="leave the folder in place"
  )
  given = parser.parse_args(arguments)
  try:
    found = run(given.vocabulary, given.out, given.share)
  except InputError as error:
    print(f"problem: {error}", file=sys.stderr)
    return 1
  card = given.docs / "ov_swig.md"
  texts = {
    given.docs / "ov_swig.json": json.dumps(found, indent=2) + "\n",
    card: filled(card.read_text(), found),
  }
  for path, text in texts.items():
    with atomic.replacing(path) as temporary:
      temporary.write_text(text)
  if not given.keep:
    shutil.rmtree(given.out)
  print(json.dumps(found["stages"]))
  return 0


if __name__ == "__main__":
  sys.exit(main())
