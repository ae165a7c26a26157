"""Rationales by a served model: whole runs, with faults and kills."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from configs import synthetic
from input_pipeline import feature_cache
from input_pipeline.io.errors import InputError
from mipd_jax import config as config_lib
from mipd_jax import write_rationales
from mipd_jax.rationales import jrg
from mipd_jax.rationales.judging import JrgConfig, ServedConfig
from mipd_jax.stages import inputs, prepare
from mipd_jax.teachers.served import endpoint, served_model
from mipd_jax.teachers.served.journal import Journal
from tests.fakes import jrg_fakes, stub_server
from tests.fakes.jrg_fakes import WORDS, Split
from tests.fakes.stub_server import serving
from tests.fixtures.pipeline_fixture import ROOT

COPYIST = jrg_fakes.copyist(wrong_every=7)
SUFFIXES = (".json", ".report.json", ".report.md")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)


def copying(fault=None):
  def answer(prompt, seed):
    # The first request of all, which wants a text of some words.
    return (
      COPYIST.answer(prompt, seed)
      if "scene:" in prompt or ("things:" in prompt)
      else "A dog runs."
    )

  return serving(answer, COPYIST.judge, fault=fault)


def write(stub, out, images, part, requests=16):
  model = served_model.load(
    f"{stub.url}#stub", ServedConfig(requests=requests, timeout=2.0)
  )
  config = JrgConfig(style="terse", images_per_part=part)
  return jrg.write_rationales(Split(images), WORDS, model, out, config)


def files(out):
  return [out.with_suffix(suffix).read_bytes() for suffix in SUFFIXES]


def test_500_texts_from_a_server_that_fails_every_fifth_time(tmp_path):
  with copying() as stub:
    texts = write(stub, tmp_path / "calm.json", 125, 64)
    calm = dict(stub.answered)
  with copying(stub_server.every_fifth) as stub:
    assert write(stub, tmp_path / "wild.json", 125, 64) == texts
    # An answer that came after its time-out is asked for again.
    assert set(stub.answered) == set(calm)
    failed = len(stub.requests) - stub.answered.total()
  assert sum(map(len, texts.values())) == 500
  assert failed > 0.1 * len(calm)
  assert files(tmp_path / "wild.json") == files(tmp_path / "calm.json")
  assert not (tmp_path / "wild.json.parts").exists()


class Killed(BaseException):
  pass


def test_a_run_killed_three_times_asks_nothing_twice(tmp_path, monkeypatch):
  out, add, kept = tmp_path / "r.json", Journal.add, []
  with copying() as stub:
    write(stub, tmp_path / "whole.json", 20, 8)
  probes = ("A dog", "Facts")
  with copying() as stub:
    for times in (10, 50, 90):

      def dies(self, key, answer, times=times):
        if len(kept) >= times:
          raise Killed
        add(self, key, answer)
        kept.append(key)

      monkeypatch.setattr(Journal, "add", dies)
      with pytest.raises(Killed):
        write(stub, out, 20, 8)
      assert not out.exists()
      (part,) = out.with_name("r.json.parts").glob("*.answers")
      assert not part.with_suffix(".jsonl").exists()
    monkeypatch.setattr(
      Journal, "add", lambda self, k, x: (kept.append(k), add(self, k, x))
    )
    write(stub, out, 20, 8)
    asked = [
      times
      for (prompt, _), times in stub.answered.items()
      if not prompt.startswith(probes)
    ]
  assert len(kept) == len(set(kept))
  # Those that were under way at a kill had not arrived.
  assert sum(asked) - len(asked) <= 3 * 16
  assert files(out) == files(tmp_path / "whole.json")


_RUN = """
import sys
from mipd_jax.rationales import jrg
from mipd_jax.rationales.judging import JrgConfig, ServedConfig
from mipd_jax.teachers.served import served_model
from tests.fakes.jrg_fakes import WORDS, Split
model = served_model.load(sys.argv[1], ServedConfig(requests=4))
config = JrgConfig(style="terse")
jrg.write_rationales(Split(40), WORDS, model, sys.argv[2], config)
"""


@pytest.mark.slow
def test_kill_9_three_times(tmp_path):
  out, kept = tmp_path / "r.json", set()
  journal = tmp_path / "r.json.parts" / "00000.answers"

  def answer(prompt, seed):
    time.sleep(0.05)
    return COPYIST.answer(prompt, seed) or "A dog runs."

  def start(stub, out):
    command = [sys.executable, "-c", _RUN, f"{stub.url}#stub", str(out)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ)

  with serving(answer, COPYIST.judge) as stub:
    assert start(stub, tmp_path / "whole.json").wait() == 0
    every = len(stub.answered)
  with serving(answer, COPYIST.judge) as stub:
    for share in (0.2, 0.5, 0.8, None):
      stub.requests.clear()
      process = start(stub, out)
      while share and len(stub.answered) < share * every:
        time.sleep(0.01)
      if share:
        process.send_signal(signal.SIGKILL)
      assert process.wait() == (-signal.SIGKILL if share else 0)
      asked = {served_model._key(endpoint.CHAT, x) for x in stub.requests}
      assert len(asked) > 5 and not asked & kept
      if share:
        lines = journal.read_text().splitlines()
        before, kept = kept, {json.loads(line)["key"] for line in lines}
        assert before < kept
  assert files(out) == files(tmp_path / "whole.json")


def test_another_model_than_last_time_is_refused_by_both_names(
  tmp_path, monkeypatch
):
  out = tmp_path / "r.json"
  with copying() as stub:
    with monkeypatch.context() as patch:
      patch.setattr(Journal, "add", _raise)
      with pytest.raises(Killed):
        write(stub, out, 4, 4)
    stub.models = [stub_server.MODEL | {"owned_by": "others"}]
    with pytest.raises(
      InputError,
      match=r"another model: stub, served .* then, "
      r"stub, served .* now",
    ) as error:
      write(stub, out, 4, 4)
    assert "take the former model again" in error.value.remedy
    stub.models = [stub_server.MODEL]
    write(stub, out, 4, 4)


def _raise(*_):
  raise Killed


def test_unjudged_texts_are_not_taken_and_are_reported(tmp_path):
  def judge(question):
    return [("It", 0.9)]

  out = tmp_path / "r.json"
  with serving(lambda p, s: COPYIST.answer(p, 1), judge) as stub:
    write(stub, out, 2, 2)
  kinds = json.loads(out.with_suffix(".report.json").read_text())["kinds"]
  for kind in kinds.values():
    assert kind["written_by_model"] == 0
    assert kind["reasons"]["not judged"] == 2 * JrgConfig.attempts


def test_the_command_finds_the_server_first(tmp_path, monkeypatch):
  def never(*_, **__):
    raise AssertionError("work was done")

  monkeypatch.setattr(write_rationales.builder, "prepare", never)
  arguments = [f"--folder={tmp_path}", f"--out={tmp_path}/r.json"]
  with copying() as stub:
    wrong = f"--model={stub.url}#llama"
    with pytest.raises(InputError, match="no model 'llama', but stub"):
      write_rationales.main([*arguments, wrong])
    right = f"--model={stub.url}#stub"
    with pytest.raises(AssertionError, match="work was done"):
      write_rationales.main([*arguments, right, "--requests=3"])


def test_a_job_asks_the_server_unless_its_cache_is_whole(tmp_path):
  values = synthetic.get_config("debug")
  values.teacher.cache = str(tmp_path)
  with copying() as stub:
    values.teacher.language_model = f"{stub.url}#stub"
    values.teacher.served.requests = 3
    job = config_lib.unpack(values)
    assert not [x for x in inputs._encoders(job) if "://" in x]
    inputs._try_served(job)
    source = prepare._rationales(job, dataset=None)
    assert "stub, served (chat, log-probabilities)" in source.version
    stub.models = [{"id": "llama"}]
    with pytest.raises(InputError, match="no model 'stub', but llama"):
      inputs._try_served(job)
  (tmp_path / feature_cache.MANIFEST).write_text("")
  inputs._try_served(job)
