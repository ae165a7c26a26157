"""Runs one case and classifies its outcome by docs/reliability.md's rule."""

import contextlib
import hashlib
import os
import pathlib
import random
import re
import shutil
import signal
import time
from collections.abc import Iterable

from benchmarks.hardening import cases, command_lines, damage, process
from benchmarks.hardening.cases import Case
from benchmarks.hardening.process import COMPILED, Ended
from benchmarks.hardening.states import States

OUTCOMES = ("same", "message", "traceback", "silent", "lost")
_TRACE = ("Traceback (most recent call last)", "Fatal Python error")
# After a signal a command must save and exit within so many seconds.
SLOW_SECONDS = 30.0
# In its first second Python may end a command before our code runs.
START_SECONDS = 1.0
_STOPPED = {
  int(signal.SIGTERM): 128 + signal.SIGTERM,
  int(signal.SIGINT): 128 + signal.SIGINT,
}
_READ_ONLY = ("check", "metrics.swig", "metrics.hico_det", "exported")
_SHOWN = 700


def run(case: Case, states: States, folder: pathlib.Path) -> dict:
  """Runs a case in a new folder, which is kept.

  Returns:
    'case', 'kind', 'state', 'command', 'damage', 'outcome', 'why', 'code',
    'said', and further details.
  """
  clear(folder)
  wanted = states.undisturbed(case.state, case.command)
  states.copy(case.state, folder)
  if case.number:
    row = _kill(case, wanted, folder)
  else:
    row = _corrupt(case, wanted, states, folder)
  return {
    "case": case.name,
    "kind": case.kind,
    "state": case.state,
    "command": case.command,
  } | row


def clear(folder: pathlib.Path) -> None:
  """Deletes a folder, even if a thread of the previous case still writes."""
  for _ in range(5):
    with contextlib.suppress(OSError):
      if folder.exists():
        shutil.rmtree(folder)
      return
    time.sleep(1)
  shutil.rmtree(folder)


def _kill(case: Case, wanted: dict, folder: pathlib.Path) -> dict:
  command = command_lines.COMMANDS[case.command]
  seconds = case.share * wanted["cpu_seconds"]
  if case.own_process:
    seconds = case.share * (wanted["cpu_seconds"] + 8)  # it imports, too
  ended = process.run(
    command,
    folder,
    own_process=case.own_process,
    kill=process.Kill(case.number, lambda cpu: cpu >= seconds),
  )
  own = ", own process" if case.own_process else ""
  row = {
    "damage": f"{case.kind} at {100 * case.share:.0f} %{own}",
    "code": ended.code,
    "said": _last(ended.after if ended.killed else ended.err),
    "killed": ended.killed,
    "stop_seconds": round(ended.stop_seconds, 2),
    "lines": len(ended.after.strip().splitlines()),
  }
  done = ended.code == 0 and not command_lines.differing(
    wanted["products"], _products(command, folder, ended), set()
  )
  wrong = None if done else stopped_wrong(case, ended)
  again = ended
  if ended.code or not command.once:
    again = process.run(command, folder)
  after = _products(command, folder, again)
  differ = command_lines.differing(wanted["products"], after, set())
  row["leftovers"] = _leftovers(folder)
  if again.code or again.hung or _has_trace(again):
    outcome = "traceback" if _is_trace(again) else "lost"
    return row | {
      "outcome": outcome,
      "why": f"the same command again ends with {again.code}",
      "said": _last(again.err),
    }
  if differ:
    return row | {
      "outcome": "silent",
      "why": f"after the same command again {_listed(differ)} differ",
    }
  outcome, why = wrong or ("same", "")
  return row | {"outcome": outcome, "why": why}


def stopped_wrong(case: Case, ended: Ended) -> tuple[str, str] | None:
  """(outcome, why) if a command stopped wrongly at a signal."""
  if not ended.killed or case.number == signal.SIGKILL:
    return None
  if _has_trace(ended):
    return "traceback", "a traceback at the signal"
  if ended.hung or ended.stop_seconds > SLOW_SECONDS:
    return "traceback", f"stopped after {ended.stop_seconds:.0f} s"
  right = [_STOPPED[case.number]]
  if ended.cpu_seconds < START_SECONDS:
    right.append(-case.number)  # shells give it the same code
  if ended.code not in right:
    kind = "silent" if ended.code == 0 else "traceback"
    return kind, f"exit code {ended.code} after {case.kind}, not {right[0]}"
  return None


def _corrupt(
  case: Case, wanted: dict, states: States, folder: pathlib.Path
) -> dict:
  command = command_lines.COMMANDS[case.command]
  rng = random.Random(case.seed)
  if case.kind == cases.FULL_DISK:
    said, name = f"no file above {case.file_size} bytes", ""
    touched: dict[str, str] = {}
  else:
    name, said, touched = _damage(case, rng, folder)
  ended = process.run(command, folder, file_size=case.file_size)
  after = _products(command, folder, ended)
  row = {
    "file": name,
    "damage": said,
    "code": ended.code,
    "said": _last(ended.err or ended.out),
  }
  untouched = {
    path
    for path, digest in touched.items()
    if _digest(folder / path) == digest and _exempt(path, digest)
  }
  differ = command_lines.differing(wanted["products"], after, untouched)
  outcome, why = outcome_of(ended, differ, name)
  changes = ended.code and case.command not in _READ_ONLY
  whole = states.place(case.state)
  if (
    outcome == "message"
    and changes
    and not _is_as_before(whole, folder, touched, case)
  ):
    lost = _repeat(case, wanted, states, folder, touched)
    outcome, why = ("lost", lost) if lost else (outcome, why)
  return row | {"outcome": outcome, "why": why}


def outcome_of(ended: Ended, differ: list[str], name: str) -> tuple[str, str]:
  """(outcome, why) of one command."""
  if ended.hung:
    return "traceback", f"it hung for {process.TIMEOUT_SECONDS} s"
  if _is_trace(ended):
    return "traceback", f"exit code {ended.code}"
  if ended.code:
    if not (ended.err + ended.out).strip():
      return "traceback", f"exit code {ended.code} without a word"
    return "message", ""
  if not differ:
    return "same", ""
  told = pathlib.PurePath(name).name
  if told and told in ended.err + ended.out:
    return "message", "the file is named, and the work done without it"
  return "silent", f"{_listed(differ)} differ"


def _repeat(
  case: Case,
  wanted: dict,
  states: States,
  folder: pathlib.Path,
  touched: Iterable[str],
) -> str:
  """Mends the damage, runs the command again and says what is still wrong."""
  whole = states.place(case.state)
  for path in touched:
    if (whole / path).exists():
      (folder / path).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy2(whole / path, folder / path)
    else:
      (folder / path).unlink(missing_ok=True)
  command = command_lines.COMMANDS[case.command]
  again = process.run(command, folder)
  if again.code:
    return f"mended, it ends with {again.code}: {_last(again.err)[-200:]}"
  after = _products(command, folder, again)
  differ = command_lines.differing(wanted["products"], after, set())
  return f"mended, {_listed(differ)} differ" if differ else ""


def _damage(
  case: Case, rng: random.Random, folder: pathlib.Path
) -> tuple[str, str, dict[str, str]]:
  """Damages a file; returns its name, the damage, digests of changed files."""
  kind = cases.KINDS[case.kind]
  if case.kind in cases.NEW:
    encoders = sorted((folder / "foundation").iterdir())
    files = [rng.choice(encoders) / case.kind]
    before = _digests(folder, files[0].parent.iterdir())
  else:
    files = sorted({path for p in kind.patterns for path in folder.glob(p)})
    is_kind = (
      pathlib.Path.is_dir if case.how == "folder" else pathlib.Path.is_file
    )
    files = [path for path in files if is_kind(path)]
    before = _digests(folder, files)
  path = rng.choice(files)
  name = str(path.relative_to(folder))
  if case.how == "folder":
    gone = [file for file in path.rglob("*") if file.is_file()]
    before = _digests(folder, gone)
    shutil.rmtree(path)
    said = "folder deleted"
  else:
    if case.kind == "compiled programs":
      for file in files:  # one that it is exchanged with is a link, too
        _own_copy(file)
    how = case.how  # 'hostile' alone: which is drawn now
    if how == "hostile":
      names = damage.hostile_names(path, known=case.known)
      how = f"hostile:{rng.choice(names)}"
    said = damage.apply(path, how, rng, files, keep_time=case.keep_time)
  after = {other: _digest(folder / other) for other in before}
  after.setdefault(name, _digest(path))
  touched = {
    other: digest
    for other, digest in after.items()
    if before.get(other) != digest
  }
  return name, said, touched


def _own_copy(path: pathlib.Path) -> None:
  """Replaces a link by a copy that can be damaged alone."""
  content = path.read_bytes()
  path.unlink()
  path.write_bytes(content)


def _exempt(path: str, digest: str) -> bool:
  """Whether a damaged file may stay damaged, since it is not a product."""
  del digest
  return path.startswith(("cache/", "work/checkpoints/", "work/best/"))


def _is_as_before(
  whole: pathlib.Path,
  folder: pathlib.Path,
  touched: dict[str, str],
  case: Case,
) -> bool:
  """Whether a failed command left all files as they were."""
  if case.file_size:
    return False  # there may be parts of new files
  for path in whole.rglob("*"):
    name = str(path.relative_to(whole))
    if not path.is_file() or name in touched or name.startswith(COMPILED):
      continue
    here = folder / name
    if not here.exists():
      return False
    one, other = path.stat(), here.stat()
    same = (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
    if not same and _digest(path) != _digest(here):
      return False
  for name, digest in touched.items():
    if _digest(folder / name) != digest:
      return False
  return True


def _products(
  command: command_lines.Command, folder: pathlib.Path, ended: Ended
) -> dict:
  return process.in_fork(
    lambda: command_lines.products(command, folder, ended.out)
  )


def _leftovers(folder: pathlib.Path) -> list[str]:
  """Temporary files that nothing will delete, and superfluous checkpoints."""
  temporary = [
    str(path.relative_to(folder))
    for path in folder.rglob("*")
    if re.search(r"tmp|incomplete|^\.[a-z_0-9]+\..{6,}", path.name)
    and COMPILED not in path.parts
  ]
  best = [x for x in folder.glob("work/best/*") if x.name.isdigit()]
  return sorted(temporary)[:10] + [str(x.relative_to(folder)) for x in best[1:]]


def _is_trace(ended: Ended) -> bool:
  return ended.code < 0 or ended.code not in (0, 1, 2) or _has_trace(ended)


def _has_trace(ended: Ended) -> bool:
  return any(word in ended.err for word in _TRACE)


def _digests(
  folder: pathlib.Path, files: Iterable[pathlib.Path]
) -> dict[str, str]:
  return {str(path.relative_to(folder)): _digest(path) for path in files}


def _digest(path: pathlib.Path) -> str:
  if not path.is_file():
    return ""
  return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _last(text: str) -> str:
  return text.strip()[-_SHOWN:]


def _listed(names: list[str]) -> str:
  more = f" and {len(names) - 3} more" if len(names) > 3 else ""
  return ", ".join(names[:3]) + more


def keep(folder: pathlib.Path, target: pathlib.Path) -> None:
  """Moves a case's folder to a place where it can be examined."""
  if target.exists():
    shutil.rmtree(target)
  target.parent.mkdir(parents=True, exist_ok=True)
  os.rename(folder, target)
