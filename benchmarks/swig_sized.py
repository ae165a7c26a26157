"""Runs every command on a folder as large as SWiG, for docs/ov_swig.md.

  python -m benchmarks.swig_sized --vocabulary=DIR --out=DIR [--share=1.0]
    [--small-world=runs/data/small_world] [--run=WORKDIR] [--docs=docs] [--keep]

Makes a folder of SWiG's 126,102 names with tiny pictures (`swig_folder` says
what it needs from DIR) and measures time and peak memory of every command on
it, each in its own process. The rate of decoding photographs is measured on a
second folder: a hundredth of the names, with pictures of SWiG's size. If a
small world is given, the rate of its cached features is compared with the need
of a training step on it.

Writes docs/ov_swig.json and fills docs/ov_swig.md between its markers:

  <!-- begin docs/ov_swig.json --> ... <!-- end docs/ov_swig.json -->
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

from benchmarks import figures
from benchmarks.support import swig_tables
from benchmarks.support.swig_folder import PHOTOGRAPH, make
from input_pipeline.io import atomic
from input_pipeline.io.errors import InputError


def timed(*arguments: str) -> tuple[dict[str, Any], str]:
  """Runs a module in its own process.

  Returns:
    'seconds', 'peak_mb' of memory and exit 'code'; and what it printed.
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
  source: pathlib.Path,
  out: pathlib.Path,
  share: float,
  small_world: pathlib.Path | None = None,
  work: pathlib.Path | None = None,
) -> dict[str, Any]:
  """Makes the folder and runs everything on it.

  Args:
    source: the vocabulary's folder.
    out: the folder to write.
    share: the share of the image names to use.
    small_world: folder with world, tfds and cache, for cached features.
    work: work directory of a run on it.

  Returns:
    The content of docs/ov_swig.json.
  """
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
  checked = json.loads(report.read_text())
  stages["build"], _ = timed(*builder, "--build", folder, "--data-dir", data)
  stages["open what is built"], _ = timed(
    *builder, "--build", folder, "--data-dir", data
  )
  streams = {}
  stages["stream"], streams["tiny"] = timed(
    "benchmarks.input", f"--folder={folder}", f"--data-dir={data}"
  )
  photographs = out / "photographs"
  make(source, photographs, share / 100, PHOTOGRAPH)
  stages["stream of photographs"], streams["photographs"] = timed(
    "benchmarks.input",
    f"--folder={photographs}",
    f"--data-dir={photographs / 'tfds'}",
  )
  if small_world is not None:
    stages["stream of features"], streams["small world"] = timed(
      "benchmarks.input",
      f"--folder={small_world / 'world'}",
      f"--data-dir={small_world / 'tfds'}",
      f"--cache={small_world / 'cache'}",
      *([] if work is None else [f"--run={work}"]),
    )
  wrong = {name: s["code"] for name, s in stages.items() if s.get("code")}
  if wrong or checked["problems"]:
    raise InputError(
      f"stages failed: {wrong}, problems: {checked['problems'][:3]}",
      "look at what they printed above",
    )
  return {
    "command": "python -m benchmarks.swig_sized",
    "cores": os.cpu_count(),
    "images": images,
    "groups": checked["images"],
    "verbs": checked["facts"]["groups"],
    "index_files": checked["facts"]["index_files"],
    "swig": checked["facts"]["swig"],
    "stages": stages,
    "streams": {name: json.loads(line) for name, line in streams.items()},
    "statistics": _statistics(pathlib.Path(data)),
  }


def _statistics(data: pathlib.Path) -> dict[str, Any]:
  (path,) = data.glob("ov_swig/*/*/metadata.json")
  return json.loads(path.read_text())["statistics"]


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--vocabulary", required=True, type=pathlib.Path)
  parser.add_argument("--out", required=True, type=pathlib.Path)
  parser.add_argument("--share", type=float, default=1.0)
  parser.add_argument("--small-world", type=pathlib.Path)
  parser.add_argument("--run", type=pathlib.Path, help="on the small world")
  parser.add_argument("--docs", type=pathlib.Path, default=figures.DOCS)
  parser.add_argument(
    "--keep", action="store_true", help="leave the folder in place"
  )
  given = parser.parse_args(arguments)
  try:
    results = run(
      given.vocabulary, given.out, given.share, given.small_world, given.run
    )
  except InputError as error:
    print(f"problem: {error}", file=sys.stderr)
    return 1
  card = given.docs / "ov_swig.md"
  texts = {
    given.docs / "ov_swig.json": json.dumps(results, indent=2) + "\n",
    card: swig_tables.filled(card.read_text(), results),
  }
  for path, text in texts.items():
    with atomic.replacing(path) as temporary:
      temporary.write_text(text)
  if not given.keep:
    shutil.rmtree(given.out)
  print(json.dumps(results["stages"]))
  return 0


if __name__ == "__main__":
  sys.exit(main())
