"""launch_tpu.sh with a stub of gcloud that can fail.

tests/fakes/stub_gcloud.py really runs the remote commands, in folders that
represent workers, so quoting, logs, exit codes and signals are bash's.
"""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from tests.fakes import stub_gcloud

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ("launch_tpu.sh", "tpu/gcloud.sh", "tpu/follow.sh", "tpu/worker.sh")
TPU = ("--name=mipd", "--zone=us-west4-a")
RUN = (*TPU, "--type=v5litepod-8")
ARGS = ("--config=configs/synthetic.py", "--workdir=gs://bucket/run1")
CAPACITY = 'There is no more capacity in the zone "us-west4-a"'
# What a shell could take for its own.
AWKWARD = (
  '--note=it\'s "two  words" $HOME `id` \\ *',
  "--empty=",
  "",
  "line\nbreak & ; | > x",
)


@dataclasses.dataclass
class World:
  """A checkout with the launcher, and what the stub keeps."""

  folder: pathlib.Path
  environment: dict[str, str]

  @property
  def checkout(self) -> pathlib.Path:
    return self.folder / "checkout"

  def plan(self, **fields) -> None:
    (self.folder / "plan.json").write_text(json.dumps(fields))

  def launch(self, *args: str, code: int = 0) -> str:
    """Runs it, checks the exit code, returns stdout and stderr."""
    done = subprocess.run(
      ["./launch_tpu.sh", *args],
      cwd=self.checkout,
      env=self.environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      stdin=subprocess.DEVNULL,
      text=True,
      timeout=60,
    )
    assert done.returncode == code, done.stdout
    return done.stdout

  def calls(self, *verbs: str) -> list[list[str]]:
    """The gcloud calls so far, without `compute tpus`; of these verbs."""
    found = [call[2:] for call in self.lines("calls.jsonl")]
    return [call for call in found if not verbs or call[1] in verbs]

  def starts(self, worker: int = 0) -> list[list[str]]:
    """The arguments of each start of main on a worker."""
    return [call[2:] for call in self.lines(f"main-{worker}.jsonl")]

  def lines(self, name: str) -> list:
    path = self.folder / name
    if not path.exists():
      return []
    return [json.loads(line) for line in path.read_text().splitlines()]

  def logs(self, worker: int = 0) -> list[str]:
    """The gathered logs, by start."""
    paths = self.checkout.glob(f"runs/tpu/mipd/*/worker-{worker}.log")
    return [path.read_text() for path in sorted(paths)]

  def pauses(self) -> list[str]:
    path = self.folder / "pauses"
    return path.read_text().split() if path.exists() else []

  def git(self, *args: str) -> None:
    subprocess.run(
      ["git", *args], cwd=self.checkout, env=self.environment, check=True
    )

  def wait_for(self, text: str, worker: int = 0) -> None:
    """Waits until the last start on a worker has written a text."""
    log = self.folder / f"home-{worker}" / "mipd" / "current" / "log"
    deadline = time.monotonic() + 20
    while not (log.exists() and text in log.read_text()):
      assert time.monotonic() < deadline, f"no {text!r} in {log}"
      time.sleep(0.02)


@pytest.fixture
def world(tmp_path):
  checkout = tmp_path / "checkout"
  for name in SCRIPTS:
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / name, checkout / name)
  for name in ("requirements.txt", "requirements-tpu.txt", "constraints.txt"):
    (checkout / name).write_text("some==1\n")
  (checkout / "code.txt").write_text("committed\n")
  (checkout / ".gitignore").write_text("/runs/\n")
  environment = {
    "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    "HOME": str(tmp_path),
    "STUB_WORLD": str(tmp_path),
    "GIT_CONFIG_NOSYSTEM": "1",
    **{
      f"GIT_{who}_{what}": "a@b.c"
      for who in ("AUTHOR", "COMMITTER")
      for what in ("NAME", "EMAIL")
    },
  }
  for name in ("bin/gcloud", "worker-bin/python3"):
    stub_gcloud.tool(str(tmp_path / name))
  sleep = tmp_path / "bin" / "sleep"
  sleep.write_text('#!/bin/sh\necho "$1" >>"$STUB_WORLD/pauses"\n')
  sleep.chmod(0o755)
  world = World(tmp_path, environment)
  world.git("init", "-q")
  world.git("add", ".")
  world.git("commit", "-q", "-m", "a commit")
  yield world
  stub_gcloud.kill_all(str(tmp_path))


def _verbs(calls: list[list[str]]) -> list[str]:
  return [f"{call[0]} {call[1]}" for call in calls]


def test_shellcheck_finds_nothing():
  shellcheck = pathlib.Path(sys.executable).parent / "shellcheck"
  done = subprocess.run(
    [shellcheck, *SCRIPTS], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout + done.stderr


# ---- Flags


def test_help_names_every_flag(world):
  told = world.launch("--help")
  script = (ROOT / "launch_tpu.sh").read_text()
  parse = script[script.index("parse() {") : script.index("check_flags() {")]
  flags = set(re.findall(r"^ +(--[a-z-]+)", parse, re.MULTILINE)) - {"--"}
  assert len(flags) > 12
  assert {flag for flag in flags if flag not in told} == set()


@pytest.mark.parametrize(
  "args, told",
  [
    ((*RUN, "--bogus", "--", *ARGS), "no flag --bogus"),
    ((*RUN, "--config=configs/synthetic.py"), "main's own come after --"),
    ((*RUN, "--name=", "--", *ARGS), "no flag --name="),
    (("--zone=z", "--type=v4-8", "--", *ARGS), "--name=NAME is missing"),
    (("--name=n", "--type=v4-8", "--", *ARGS), "--zone=ZONE is missing"),
    ((*TPU, "--", *ARGS), "--type=TYPE is missing"),
    (RUN, "ARGS are missing"),
    ((*TPU, "--type=v99-8", "--", *ARGS), "give --version"),
    ((*RUN, "--max-restarts=many", "--", *ARGS), "needs a number"),
    ((*RUN, "--detach", "--delete-after", "--", *ARGS), "--delete-after"),
    ((*RUN, "--dirty", "--commit=x", "--", *ARGS), "--dirty"),
    (("frobnicate", *RUN, "--", *ARGS), "no flag frobnicate"),
    ((*RUN, "--commit=nowhere", "--", *ARGS), "no commit nowhere"),
  ],
)
def test_wrong_flags_leave_with_2(world, args, told):
  said = world.launch(*args, code=2)
  assert told in said and "Remedy" in said
  assert "Usage: ./launch_tpu.sh" in said or "nowhere" in told
  assert world.calls() == []


def test_without_gcloud(world):
  (world.folder / "bin" / "gcloud").unlink()
  world.environment["PATH"] = f"{world.folder / 'bin'}:/bin"
  if shutil.which("gcloud", path=world.environment["PATH"]):
    for name in ("bash", "dirname", "mktemp", "rm", "cat", "env"):
      (world.folder / "bin" / name).symlink_to(shutil.which(name))
    world.environment["PATH"] = str(world.folder / "bin")
  assert "no gcloud on the PATH" in world.launch(*RUN, "--", *ARGS, code=2)


# ---- A run


def test_a_run_from_nothing(world):
  said = world.launch(*RUN, "--spot", "--", *ARGS, *AWKWARD)
  assert _verbs(world.calls()) == [
    "tpu-vm describe",
    "tpu-vm create",
    "tpu-vm describe",
    "tpu-vm scp",
    "tpu-vm ssh",  # setup
    "tpu-vm ssh",  # start
    "tpu-vm describe",
    "tpu-vm ssh",  # poll
  ] + ["tpu-vm describe", "tpu-vm ssh"] * ((len(world.calls()) - 8) // 2)
  assert all("--zone=us-west4-a" in call for call in world.calls())
  (create,) = world.calls("create")
  assert create == [
    "tpu-vm",
    "create",
    "mipd",
    "--version=v2-alpha-tpuv5-lite",
    "--accelerator-type=v5litepod-8",
    "--spot",
    "--zone=us-west4-a",
    "--quiet",
  ]
  assert world.starts() == [[*ARGS, *AWKWARD]]
  assert world.logs() == ["start 1 in code\nend of start 1\n"]
  assert "[0] start 1 in code\n[0] end of start 1\n" in said
  assert "delete --name=mipd --zone=us-west4-a" in said  # it is still billed


def test_flags_that_are_passed_on(world):
  extra = ("--create-flag=--network=n 1", "--create-flag=--reserved")
  extra += ("--ssh-flag=--internal-ip", "--project=p", "--version=v9")
  world.launch(*RUN, *extra, "--delete-after", "--", *ARGS)
  (create,) = world.calls("create")
  assert {"--network=n 1", "--reserved", "--version=v9"} <= set(create)
  assert "--spot" not in create
  assert all("--project=p" in call for call in world.calls())
  for call in world.calls("ssh", "scp"):
    assert "--internal-ip" in call
  assert world.calls()[-1][:3] == ["tpu-vm", "delete", "mipd"]


@pytest.mark.parametrize("queued", [(), ("--queued", "--spot")])
def test_dry_run_prints_the_calls_of_a_real_one(world, queued):
  args = (*RUN, *queued, "--delete-after", "--", *ARGS, *AWKWARD)
  said = world.launch("run", "--dry-run", *args)
  assert world.calls() == [] and not (world.checkout / "runs").exists()
  words = shlex.split(said[said.index("gcloud compute") :], comments=False)
  text = " ".join(words)
  world.plan(queue=["WAITING_FOR_RESOURCES"])
  world.launch(*args)
  missing = []
  for call in world.calls():
    plain = _without_ids(" ".join(["gcloud", "compute", "tpus", *call]))
    if plain not in _without_ids(text):
      missing.append(plain)
  assert missing == []


def _without_ids(text: str) -> str:
  text = re.sub(r"\d{8}T\d{6}-\d+( \d+)?", "ID", text)  # poll: lines seen
  text = re.sub(r"\S+/(mipd-(code|worker))", r"\1", text)
  return text


def test_code_of_the_commit_installed_once_for_its_requirements(world):
  code = world.folder / "home-0" / "mipd" / "code"
  (world.checkout / "code.txt").write_text("changed\n")
  (world.checkout / "constraints.txt").write_text("some==2\n")
  said = world.launch(*RUN, "--", *ARGS)
  assert "--dirty copies them" in said
  assert (code / "code.txt").read_text() == "committed\n"
  (code / "runs" / "kept").write_text("on the worker's disk")
  world.launch(*RUN, "--dirty", "--", *ARGS)
  assert (code / "code.txt").read_text() == "changed\n"
  assert (code / "runs" / "kept").exists()
  world.git("commit", "-qam", "the change")
  world.launch(*RUN, "--commit=HEAD~1", "--", *ARGS)
  assert (code / "code.txt").read_text() == "committed\n"

  calls = world.lines("uv.jsonl")
  assert [call[0] for call in calls] == ["venv", "pip"] * 2
  assert calls[0][-1] != calls[2][-1]  # one for each set of requirements
  assert "-r requirements-tpu.txt -c constraints.txt" in " ".join(calls[1])


# ---- What goes wrong


def test_preempted_deleted_created_started_again(world):
  world.plan(main=["wait", 0], preempt=3)
  said = world.launch(*RUN, "--spot", "--", *ARGS)
  assert _verbs(world.calls("create", "delete")) == [
    "tpu-vm create",
    "tpu-vm delete",
    "tpu-vm create",
  ]
  assert world.starts() == [list(ARGS)] * 2
  first, second = world.logs()
  assert first == "start 1 in code\nready\n"
  assert second == "start 2 in code\nend of start 2\n"
  assert "mipd is PREEMPTED" in said and "retry 1 of 20" in said


@pytest.mark.parametrize("fault", ["shutdown", "vanish", 137])
def test_cut_off_on_a_tpu_that_stays(world, fault):
  world.plan(main=[fault, 0])
  world.launch(*RUN, "--", *ARGS)
  assert len(world.starts()) == 2
  assert len(world.calls("create")) == 1 and not world.calls("delete")


@pytest.mark.parametrize("code", [1, 2])
def test_exit_codes_1_and_2_are_final(world, code):
  world.plan(main=[code])
  said = world.launch(*RUN, "--delete-after", "--", *ARGS, code=code)
  assert len(world.starts()) == 1
  assert f"the run ended with {code}: not started again" in said
  assert len(world.calls("delete")) == 1


def test_restarts_have_a_limit(world):
  world.plan(main=[137] * 5)
  said = world.launch(*RUN, "--max-restarts=1", "--", *ARGS, code=3)
  assert len(world.starts()) == 2
  assert "all 1 retries are used" in said


def test_no_capacity_is_retried_and_waits_longer_each_time(world):
  world.plan(create=[CAPACITY] * 6)
  said = world.launch(*RUN, "--max-restarts=5", "--", *ARGS, code=3)
  assert world.pauses() == ["60", "120", "240", "480", "900"]
  assert len(world.calls("create")) == 6
  assert CAPACITY in said and "all 5 retries are used" in said


@pytest.mark.parametrize(
  "problem, told",
  [
    ("RESOURCE_EXHAUSTED: Quota limit 'TPUs' exceeded. Limit: 0", "no quota"),
    ("PERMISSION_DENIED: tpu.nodes.create", "gcloud failed"),
  ],
)
def test_other_errors_of_create_are_final(world, problem, told):
  world.plan(create=[problem])
  said = world.launch(*RUN, "--", *ARGS, code=3)
  assert told in said and problem in said and "Remedy" in said
  assert len(world.calls("create")) == 1


def test_ssh_that_fails_at_first_is_tried_again(world):
  world.plan(ssh=["refused", "", "refused", "late", "", "refused"])
  world.launch(*RUN, "--", *ARGS)
  assert world.starts() == [list(ARGS)]
  assert world.logs() == ["start 1 in code\nend of start 1\n"]


def test_ssh_that_never_works(world):
  world.plan(ssh=["connection refused"] * 9)
  said = world.launch(*RUN, "--", *ARGS, code=3)
  assert "connection refused" in said and "cannot be reached" in said
  assert len(world.calls("ssh")) == 3


def test_no_answer_of_google_cloud(world):
  said = "credentials are missing"
  world.plan(describe=[said])
  assert said in world.launch(*RUN, "--", *ARGS, code=3)
  # Once a run is followed it may pass: after the two looks of the creation.
  world.plan(describe=["", "", "offline", "offline"])
  assert "no answer" in world.launch(*RUN, "--", *ARGS)
  assert len(world.starts()) == len(world.calls("create")) == 1


# ---- Queued resources, a TPU that is there, several workers


def test_a_queued_resource(world):
  waits = ["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING"]
  world.plan(queue=list(waits))
  said = world.launch(*RUN, "--queued", "--spot", "--", *ARGS)
  (create,) = world.calls("create")
  assert create[:3] == ["queued-resources", "create", "mipd"]
  assert {"--node-id=mipd", "--runtime-version=v2-alpha-tpuv5-lite"} < set(
    create
  )
  assert {"--accelerator-type=v5litepod-8", "--spot"} < set(create)
  assert said.count("WAITING_FOR_RESOURCES") == 1  # told when it changes
  assert len(world.starts()) == 1
  world.launch("delete", *TPU)
  assert world.calls()[-1][:4] == [
    "queued-resources",
    "delete",
    "mipd",
    "--force",
  ]


def test_a_queued_resource_that_fails_or_is_preempted(world):
  world.plan(queue=["FAILED"], main=["wait", 0], preempt=2)
  world.launch(*RUN, "--queued", "--", *ARGS)
  assert _verbs(world.calls("create", "delete")) == [
    "queued-resources create",
    "queued-resources delete",
  ] * 2 + ["queued-resources create"]


def test_a_tpu_that_is_there_is_reused(world):
  world.launch(*RUN, "--", *ARGS)
  world.launch(*RUN, "--", *ARGS, "--mode=eval")
  assert len(world.calls("create")) == 1
  assert world.starts() == [list(ARGS), [*ARGS, "--mode=eval"]]
  world.plan(type="v4-8")
  said = world.launch(*RUN, "--", *ARGS, code=2)
  assert "mipd is a v4-8, not a v5litepod-8" in said


def test_a_run_that_is_going_is_followed_not_started_again(world):
  world.plan(main=["wait", 0], preempt=2)
  world.launch(*RUN, "--detach", "--", *ARGS)
  world.wait_for("ready")
  said = world.launch(*RUN, "--", *ARGS, "--mode=eval", code=2)
  assert "another run is going on mipd" in said
  assert len(world.starts()) == 1 and world.logs() == []
  world.launch(*RUN, "--", *ARGS)  # until it is preempted
  assert len(world.starts()) == 2
  assert world.logs()[0] == "start 1 in code\nready\n"


def test_stop_saves_and_the_follower_leaves_with_0(world):
  world.plan(main=["wait"])
  follower = subprocess.Popen(
    ["./launch_tpu.sh", *RUN, "--", *ARGS],
    cwd=world.checkout,
    env=world.environment,
    stdout=subprocess.DEVNULL,
  )
  try:
    world.wait_for("ready")
    assert "stopped 0" in world.launch("stop", *TPU)
    assert follower.wait(timeout=20) == 0
  finally:
    follower.kill()
  assert world.logs() == ["start 1 in code\nready\nsaved\n"]
  assert "stopped 0" in world.launch("status", *TPU)
  assert len(world.starts()) == 1


def test_several_workers(world):
  world.plan(workers=9, main=[[0] * 8 + [2]])
  said = world.launch(*RUN, "--", *ARGS, code=2)
  for worker in range(9):
    assert world.starts(worker) == [["--coordinator=auto", *ARGS]]
    assert world.logs(worker) == ["start 1 in code\nend of start 1\n"]
  assert "worker 8 ended with exit code 2" in said
  assert "[1]" not in said  # worker 0 alone is shown


def test_workers_that_go_on_alone_are_ended_before_the_next_start(world):
  world.plan(workers=2, main=[["wait", 134], 0])
  world.launch(*RUN, "--", *ARGS)
  assert [len(world.starts(worker)) for worker in (0, 1)] == [2, 2]
  before = world.folder / "home-0" / "mipd" / "starts"
  exits = [path.read_text() for path in sorted(before.glob("*/exit"))]
  assert exits == ["stopped 0\n", "ended 0\n"]


# ---- The other commands


def test_commands_need_a_tpu(world):
  for command in ("logs", "stop"):
    said = world.launch(command, *TPU, code=3)
    assert "mipd in us-west4-a is MISSING" in said
  assert "MISSING" in world.launch("status", *TPU)
  assert "was not deleted" in world.launch("delete", *TPU, code=3)


def test_ssh_and_logs(world):
  world.launch(*RUN, "--detach", "--", *ARGS)
  world.wait_for("end of start 1")
  said = world.launch("ssh", *TPU, "--", "ls *.gz && echo $((40 + 2))")
  assert "mipd-code.tar.gz\n42\n" in said
  logs = world.folder / "elsewhere"
  world.launch("logs", *TPU, f"--logs={logs}")
  world.launch("logs", *TPU, f"--logs={logs}")  # adds nothing twice
  (log,) = logs.glob("*/worker-0.log")
  assert log.read_text() == "start 1 in code\nend of start 1\n"


@pytest.mark.slow
def test_the_real_gcloud_knows_the_commands(world, tmp_path):
  gcloud = shutil.which("gcloud", path=os.environ["PATH"])
  if not gcloud:
    pytest.skip("the Google Cloud CLI is not installed")
  said = world.launch(*RUN, "--spot", "--dry-run", "--delete-after", "--", "a")
  said += world.launch(*RUN, "--queued", "--dry-run", "--", "a")
  for command in ("status", "stop", "delete", "ssh"):
    said += world.launch(command, *TPU, "--dry-run")
  lines = {line for line in said.splitlines() if line.startswith("gcloud ")}
  assert len(lines) > 10
  wrong = "gcloud compute tpus tpu-vm ssh x --no-such-flag"
  commands = tmp_path / "commands.json"
  commands.write_text(
    json.dumps([{"command_string": line} for line in [*sorted(lines), wrong]])
  )
  done = subprocess.run(
    [gcloud, "meta", "lint-gcloud-commands", f"--commands-file={commands}"],
    env={**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "gcloud")},
    capture_output=True,
    text=True,
  )
  answers = json.loads(done.stdout)
  refused = [a["command_string"] for a in answers if not a["success"]]
  assert refused == [wrong]


@pytest.mark.parametrize(
  "name",
  [
    *(
      "../..",
      "-rf",
      "--force",
      "a b",
      "a'b",
      'a"b',
      "$(touch x)",
      "`touch x`",
    ),
    *(
      "a\nb",
      "\n",
      "a\n",
      "a;touch x",
      "a/b",
      "a*",
      "A",
      "aB",
      "1a",
      "a-",
      "a_b",
    ),
    *("a.b", "é", "a\u0131", "x" * 64, "a\tb", "~", "a:b", "a@b", "{a,b}"),
  ],
)
def test_names_that_google_does_not_take(world, name):
  for flags in ((f"--name={name}", TPU[1]), (TPU[0], f"--zone={name}")):
    for command in ("run", "delete"):
      said = world.launch(command, *flags, "--type=v4-8", "--", *ARGS, code=2)
      assert "is no name" in said or "is no zone" in said
      assert "Remedy: give" in said
  assert not world.lines("calls.jsonl") and not world.logs()
  assert not list(world.folder.rglob("x"))


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("--project=-x", "is no project"),
    ("--project=a b", "is no project"),
    ("--project=$(touch x)", "is no project"),
    ("--type=-8", "is no accelerator type"),
    ("--type=v4-8;touch x", "is no accelerator type"),
    ("--version=../x", "is no runtime version"),
    ("--commit=-x", "is no commit"),
    ("--commit=--output=x", "is no commit"),
    ("--commit=a\nb", "is no commit"),
    ("--max-restarts=-1", "needs a number"),
    ("--max-restarts=08", "needs a number"),
    ("--max-restarts=a[$(touch x)]", "needs a number"),
    ("--max-restarts=99999999999999999999", "needs a number"),
    ("--ssh-flag=x", "is no flag of gcloud"),
    ("--create-flag=-rf", "is no flag of gcloud"),
  ],
)
def test_other_values_of_another_form(world, flag, said):
  assert said in world.launch(*RUN, flag, "--", *ARGS, code=2)
  assert not world.lines("calls.jsonl") and not list(world.folder.rglob("x"))


@pytest.mark.parametrize("name", ["LAUNCH_TPU_POLL", "LAUNCH_TPU_RETRY"])
def test_seconds_are_numbers(world, name):
  world.environment[name] = "a[$(touch x)]"
  assert f"{name}=" in world.launch(*RUN, "--", *ARGS, code=2)
  assert not list(world.folder.rglob("x"))


def test_values_that_google_takes(world):
  for flags in (
    ("--name=a", "--zone=us-west4-a", "--project=example.com:my-project-1"),
    (f"--name={'x' * 63}", "--zone=europe-west4-b", "--project=123456789012"),
  ):
    said = world.launch(
      *(*flags, "--type=v5p-8", "--max-restarts=0", "--dry-run"),
      *("--ssh-flag=--internal-ip", "--create-flag=--network=default"),
      *("--logs=-x", "--", *ARGS),
    )
    hint = said.split("is billed: ")[1].split("\n")[0]
    assert shlex.split(hint) == ["./launch_tpu.sh", "delete", *flags]


def test_a_run_of_another_name_is_no_path(world):
  world.launch(*RUN, "--detach", "--", *ARGS)
  world.wait_for("end of start 1")
  starts = world.folder / "home-0" / "mipd" / "starts"
  (start,) = starts.iterdir()
  start.rename(starts / "..x")
  (starts.parent / "current").unlink()
  (starts.parent / "current").symlink_to(starts / "..x")
  said = world.launch("logs", *TPU, code=2)
  assert "not started by this launcher" in said
