"""A gcloud with a TPU made of folders, for tests/repository/test_launch.py.

Each call is noted in calls.jsonl. A worker is a folder home-N in which remote
commands really run; there, `python3`, `uv` and the Python of the venv are this
file too, under those names. plan.json says what goes wrong:

  type, workers     of a TPU that is created
  create, ssh, describe  for each call in turn an error text, "" for none;
                    ssh with "late" breaks off after the command has run
  queue             states of a queued resource, one a look; then it is ACTIVE
  preempt           after how many polls the TPU is taken away (once)
  main              for each start what `python -m mipd_jax.main` does, or a
                    list with one entry a worker: an exit code, "wait" (until
                    SIGTERM, then 0), "shutdown" (the machine goes down: all
                    get SIGTERM), "vanish" (no process is left)

It starts some hundred times in a test run, so it imports little.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time

WORLD = os.environ.get("STUB_WORLD", "")


def main(tool: str, args: list[str]) -> int:
  tools = {"gcloud": gcloud, "python3": pip, "uv": uv, "python": mipd}
  return tools[tool](args)


# ---- gcloud


def gcloud(args: list[str]) -> int:
  with open(f"{WORLD}/lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # workers are polled at once
    _append("calls.jsonl", args)
    world = _read("world.json", {"state": "MISSING", "queue": "MISSING"})
    plan = _read("plan.json", {})
    resource, verb = args[2:4]
    try:
      problem = _next(plan, verb)
      if problem and problem != "late":
        sys.exit(_error(problem))
      if resource == "queued-resources":
        _queue(verb, world, plan)
      elif verb in ("create", "delete", "describe"):
        _tpu(verb, world, plan)
      elif world["state"] != "READY":
        sys.exit(_error(f"the TPU is {world['state']}"))
      if "poll" in str(args) and plan.get("preempt", 0) > 0:
        plan["preempt"] -= 1
        if not plan["preempt"]:
          world["state"] = "PREEMPTED"
    finally:
      _write("world.json", world)
      _write("plan.json", plan)
  if verb == "scp":
    return _copy(args[4:])
  code = _ssh(args[4:]) if verb == "ssh" else 0
  return 255 if problem else code


def _tpu(verb: str, world: dict, plan: dict) -> None:
  if verb == "create":
    assert world["state"] == "MISSING"
    _make(world, plan)
  elif world["state"] == "MISSING":
    sys.exit(_error("NOT_FOUND: Resource 'nodes/x' was not found"))
  elif verb == "delete":
    _delete(world)
  else:
    kind = plan.get("type", "v5litepod-8")
    print(f"{world['state']},{kind},{len(_homes())}")


def _queue(verb: str, world: dict, plan: dict) -> None:
  if verb == "create":
    assert world["queue"] == "MISSING"
    world["queue"] = "ACCEPTED"
  elif world["queue"] == "MISSING":
    sys.exit(_error("NOT_FOUND: Resource 'queuedResources/x' was not found"))
  elif verb == "delete":
    world["queue"] = "MISSING"
    _delete(world)
  else:
    if world["queue"] != "ACTIVE":
      states = plan.get("queue", [])
      world["queue"] = states.pop(0) if states else "ACTIVE"
      if world["queue"] == "ACTIVE":
        _make(world, plan)
    print(world["queue"])


def _make(world: dict, plan: dict) -> None:
  for worker in range(plan.get("workers", 1)):
    os.mkdir(f"{WORLD}/home-{worker}")
  world["state"] = "READY"


def _delete(world: dict) -> None:
  import shutil

  kill_all(WORLD)
  for home in _homes():
    shutil.rmtree(home)
  world["state"] = "MISSING"


def kill_all(world: str) -> None:
  """Ends what was started on the workers of a world, a folder."""
  import glob

  for path in glob.glob(f"{world}/home-*/mipd/starts/*/process"):
    with contextlib.suppress(ProcessLookupError, IndexError):
      with open(path) as file:
        process = int(file.read().split()[0])
      os.killpg(process, signal.SIGKILL)


def _copy(args: list[str]) -> int:
  files = [arg for arg in args if not arg.startswith("--")]
  assert "--worker=all" in args and files.pop() == "mipd:"
  words = ["cp", *files]
  return max(os.spawnvp(os.P_WAIT, "cp", [*words, h]) for h in _homes())


def _ssh(args: list[str]) -> int:
  flags = dict(arg.partition("=")[::2] for arg in args)
  homes = _homes()
  if flags["--worker"] != "all":
    homes = [f"{WORLD}/home-{flags['--worker']}"]
  os.closerange(3, 64)  # ssh passes on nothing of the launcher's
  codes = []
  for home in homes:
    environment = {
      "HOME": home,
      "PATH": f"{WORLD}/worker-bin:/usr/bin:/bin",
      "STUB_WORLD": WORLD,
    }
    os.chdir(home)
    words = ["bash", "-c", flags["--command"]]
    codes.append(os.spawnve(os.P_WAIT, "/bin/bash", words, environment))
  return max(codes)


def _homes() -> list[str]:
  return [f"{WORLD}/{name}" for name in os.listdir(WORLD) if "home-" in name]


def _next(plan: dict, verb: str) -> str:
  problems = plan.get(verb, [])
  return problems.pop(0) if problems else ""


def _error(text: str) -> int:
  print(f"ERROR: (gcloud.compute.tpus) {text}", file=sys.stderr)
  return 1


# ---- The programs of a worker


def pip(args: list[str]) -> int:
  assert args[:3] == ["-m", "pip", "install"], args
  tool(args[args.index("--target") + 1] + "/bin/uv")
  return 0


def uv(args: list[str]) -> int:
  _append("uv.jsonl", args)
  if args[0] == "venv":
    tool(args[-1] + "/bin/python")
  else:
    assert os.path.exists("requirements-tpu.txt")
  return 0


def mipd(args: list[str]) -> int:
  worker = int(os.environ["HOME"].split("home-")[-1])
  started = _append(f"main-{worker}.jsonl", args)
  plan = _read("plan.json", {}).get("main", [])
  does = plan[started - 1] if started <= len(plan) else 0
  does = does[worker] if isinstance(does, list) else does
  print(f"start {started} in {os.path.basename(os.getcwd())}", flush=True)
  if does == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("saved") or 143))
    print("ready", flush=True)
    time.sleep(60)
  elif does == "shutdown":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    time.sleep(0.2)
    does = 143  # as main leaves on SIGTERM
  elif does == "vanish":
    os.killpg(0, signal.SIGKILL)
  print(f"end of start {started}", end="")
  return does


# ---- Files


def tool(path: str) -> None:
  """Writes a program that is this file under the name of the path."""
  folder, name = os.path.split(path)
  os.makedirs(folder, exist_ok=True)
  with open(path, "w") as file:
    python = f"{sys.executable} -S -E {__file__}"
    file.write(f'#!/bin/sh\nexec {python} {name} "$@"\n')
  os.chmod(path, 0o755)


def _append(name: str, args: list[str]) -> int:
  """Adds a line; returns how many there are now."""
  with open(f"{WORLD}/{name}", "a+") as file:
    file.write(json.dumps(args) + "\n")
    file.seek(0)
    return len(file.readlines())


def _read(name: str, default: dict) -> dict:
  if not os.path.exists(f"{WORLD}/{name}"):
    return default
  with open(f"{WORLD}/{name}") as file:
    return json.load(file)


def _write(name: str, value: dict) -> None:
  """Whole or not at all: the fake main reads the plan at any time."""
  with open(f"{WORLD}/{name}.part", "w") as file:
    json.dump(value, file)
  os.replace(f"{WORLD}/{name}.part", f"{WORLD}/{name}")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1], sys.argv[2:]))
