"""Kills runs and damages their files at random; records the outcomes.

  python -m benchmarks.hardening [--kills=100] [--corruptions=300] [--seed=0]
  python -m benchmarks.hardening --only=c31,k7

Every case is a pure function of seed and name. Results are appended one by
one, so the same command continues where it was stopped. It takes two workers
half an hour on two cores. Writes docs/reliability.md and .json. The last line
is one JSON object: the number of cases by outcome. The exit code is 1 if a case
ended in a traceback, silently wrong, or with something lost.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Sequence

from benchmarks.hardening import process
from input_pipeline.io import commands

process.prepare_environment()  # before anything imports numpy or jax

from benchmarks.hardening import cases, judge, table  # noqa: E402
from benchmarks.hardening.states import States  # noqa: E402

_BAD = ("traceback", "silent", "lost")
_SOURCE = ("mipd_jax", "input_pipeline", "configs")


def main(arguments: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  given = _parser().parse_args(arguments)
  plan = cases.plan(given.seed, given.kills, given.corruptions)
  if given.fixed:
    plan = list(cases.FIXED)
  elif given.only:
    plan = [cases.of(name, given.seed) for name in given.only.split(",")]
  folder = (pathlib.Path(given.folder) / _version()).absolute()
  folder.mkdir(parents=True, exist_ok=True)
  results = folder / f"results-{given.seed}.jsonl"
  rows_of = {} if given.only else _read(results)
  todo = [case for case in plan if case.name not in rows_of]
  print(
    f"{len(todo)} of {len(plan)} cases are to be run, in {folder}", flush=True
  )
  if todo:
    _work(todo, folder, results, given)
  rows_of = _read(results)
  rows = [rows_of[case.name] for case in plan if case.name in rows_of]
  if given.only:
    for row in rows:
      print(json.dumps(row, indent=1))
      print(f"its folder: {folder / 'kept' / row['case']}")
  elif given.docs and not given.fixed:
    command = (
      f"python -m benchmarks.hardening --kills={given.kills} "
      f"--corruptions={given.corruptions} --seed={given.seed}"
    )
    table.write(pathlib.Path(given.docs), rows, command)
  counts = collections.Counter(row["outcome"] for row in rows)
  print(json.dumps({name: counts[name] for name in judge.OUTCOMES}))
  return int(any(counts[name] for name in _BAD))


def _work(
  todo: list[cases.Case],
  folder: pathlib.Path,
  results: pathlib.Path,
  given: argparse.Namespace,
) -> None:
  """Runs cases in workers, and prints each as it ends."""
  process.import_libraries()
  states = States(folder)
  if given.finished:
    states.adopt(pathlib.Path(given.finished).absolute())
  for name in dict.fromkeys(case.state for case in todo):
    states.place(name)
  queue_read, queue_write = os.pipe()
  done_read, done_write = os.pipe()
  # Numbers of cases; a pipe holds tens of thousands of them.
  os.write(queue_write, b"".join(i.to_bytes(4) for i in range(len(todo))))
  os.close(queue_write)
  workers = []
  for _ in range(min(given.workers, len(todo))):
    worker = os.fork()
    if not worker:
      code, failed = 1, False
      try:
        os.close(done_read)
        while number := os.read(queue_read, 4):
          case = todo[int.from_bytes(number)]
          try:
            _one(case, states, folder, results, given)
          except Exception:
            print(f"{case.name}: a bug of this program", file=sys.stderr)
            traceback.print_exc()
            failed = True
          else:
            os.write(done_write, number)
        code = int(failed)
      except KeyboardInterrupt:
        code = 130
      finally:
        os._exit(code)
    workers.append(worker)
  os.close(done_write)
  _tell(done_read, todo, results)
  codes = [os.waitstatus_to_exitcode(os.waitpid(x, 0)[1]) for x in workers]
  if any(codes):
    raise SystemExit(f"workers ended with {codes}; the same command continues")


def _one(case, states, folder, results, given) -> None:
  """Runs one case; appends its line in one write."""
  place = folder / "cases" / case.name
  begun = time.monotonic()
  row = judge.run(case, states, place)
  row["seconds"] = round(time.monotonic() - begun, 1)
  line = json.dumps(row) + "\n"
  with results.open("ab", buffering=0) as file:
    file.write(line.encode())
  if given.only or (given.keep and row["outcome"] in _BAD):
    judge.keep(place, folder / "kept" / case.name)
  else:
    judge.clear(place)


def _tell(done: int, todo: Sequence, results: pathlib.Path) -> None:
  """Prints a line for each case, with the time left."""
  begun, count = time.monotonic(), 0
  while number := os.read(done, 4):
    count += 1
    row = _read(results)[todo[int.from_bytes(number)].name]
    left = (time.monotonic() - begun) / count * (len(todo) - count)
    print(
      f"{count}/{len(todo)} {row['case']:5} {row['outcome']:9} "
      f"{row['kind']}: {row['damage']}; {row['command']} from {row['state']}, "
      f"{row['seconds']:.0f} s; {left / 60:.0f} min left"
      + (f"; {row['why']}" if row["why"] else ""),
      flush=True,
    )


def _read(results: pathlib.Path) -> dict[str, dict]:
  """The last row of each case; ignores an incomplete line."""
  rows = {}
  if results.exists():
    for line in results.read_text().splitlines():
      try:
        row = json.loads(line)
      except ValueError:
        continue
      rows[row["case"]] = row
  return rows


def _version() -> str:
  """Digest of the code under test, which results belong to."""
  digest = hashlib.sha256()
  for name in _SOURCE:
    for path in sorted((process.ROOT / name).rglob("*.py")):
      digest.update(str(path.relative_to(process.ROOT)).encode())
      digest.update(path.read_bytes())
  return digest.hexdigest()[:12]


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.hardening",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--kills", type=int, default=100, help="default %(default)s")
  add("--corruptions", type=int, default=300, help="default %(default)s")
  add("--seed", type=int, default=0, help="default %(default)s")
  add("--only", default="", help="names of cases, such as c31,k7")
  add("--fixed", action="store_true", help="the few cases of `make test`")
  add("--finished", default="", help="a finished debug run to begin with")
  add("--folder", default="runs/hardening", help="default %(default)s")
  add("--workers", type=int, default=2, help="default %(default)s")
  add("--docs", default="docs", help="folder of the table; '' writes none")
  add("--keep", action="store_true", help="keep the folders of bad cases")
  return parser


if __name__ == "__main__":
  # No thread for signals, since this process forks.
  sys.exit(commands.guarded(main))
