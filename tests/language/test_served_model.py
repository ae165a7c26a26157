"""A served model: what is asked, how answers are read, what goes wrong."""

import email.utils
import json
import logging
import threading
import time

import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.rationales.judging import ServedConfig
from mipd_jax.teachers.served import endpoint, journal, served_model, yes_no
from tests.fakes import stub_server
from tests.fakes.stub_server import serving

QUESTION = "is it so? true?"
QUICK = ServedConfig(requests=4, timeout=2.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.003)
  monkeypatch.delenv(endpoint.KEY, raising=False)


def echo(prompt, seed):
  return f"A dog heard {prompt} ({seed})"


def sure(question):
  return 0.75


def generate(model, prompts, seeds=None, **options):
  options = {"max_new_tokens": 5, "temperature": 0.7} | options
  return model.generate(prompts, seeds=seeds or range(len(prompts)), **options)


def test_texts_come_in_the_order_of_their_prompts():
  def late(prompt, seed):
    time.sleep(0.2 if seed == 0 else 0)
    return echo(prompt, seed)

  with serving(late, sure) as stub:
    model = served_model.load(f"{stub.url}#stub", QUICK)
    stub.requests.clear()
    prompts = [f"p{i}" for i in range(9)]
    assert generate(model, prompts) == [
      echo(p, i) for i, p in enumerate(prompts)
    ]
    assert 1 < stub.most <= QUICK.requests
    assert generate(model, ["p"], [2**32 - 1]) == [echo("p", 2**31 - 1)]
    body = next(x for x in stub.requests if x["seed"] == 3)
  assert body == {
    "model": "stub",
    "messages": [{"role": "user", "content": "p3"}],
    "max_tokens": 5,
    "temperature": 0.7,
    "top_p": 1,
    "seed": 3,
  }


def test_the_same_request_is_sent_once():
  with serving(echo, sure) as stub:
    model = served_model.load(stub.url, QUICK)
    stub.requests.clear()
    assert generate(model, ["a", "b", "a"], [1, 1, 1]) == [
      echo(p, 1) for p in "aba"
    ]
    assert len(stub.requests) == 2


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("form", [stub_server.CONTENT, stub_server.TOP])
def test_judged_by_all_spellings_in_both_forms(form, chat):
  tokens = [(" Maybe", 0.4), ("Yes", 0.2), (" yes", 0.1), ("ĠYES", 0.05)]
  tokens += [(" no", 0.1), ("No.", 0.05), ("not", 0.05), ("nothing", 0.05)]
  with serving(echo, lambda q: tokens, logprobs=form, chat=chat) as stub:
    model = served_model.load(f"{stub.url}/#stub", QUICK)
    assert ("chat" if chat else "completions") in model.revision
    judged = model.answer_probability([QUESTION])
    assert stub.requests[-1]["max_tokens"] == 1
  assert judged.dtype == np.float32
  np.testing.assert_allclose(judged, [0.35 / 0.5], rtol=1e-6)


def test_what_is_neither_yes_nor_no_is_not_judged_and_counted(caplog):
  def judge(question):
    return [("It", 0.6), (" yes", 0.0)] if "2" in question else 0.25

  with serving(echo, judge) as stub:
    model = served_model.load(stub.url, QUICK)
    judged = model.answer_probability([f"{i} {QUESTION}" for i in range(4)])
  np.testing.assert_allclose(judged, [0.25, 0.25, np.nan, 0.25])
  assert "1 of 4 answers of stub are neither yes nor no" in caplog.text


@pytest.mark.parametrize("form", ["", stub_server.EMPTY])
def test_without_logprobs_judgements_are_drawn_and_that_is_said_once(
  form, caplog
):
  with serving(echo, sure, logprobs=form) as stub:
    model = served_model.load(stub.url, QUICK)
    stub.requests.clear()
    judged = model.answer_probability([f"{i} {QUESTION}" for i in range(30)])
    again = model.answer_probability([f"{i} {QUESTION}" for i in range(30)])
    assert len({x["seed"] for x in stub.requests}) == 30 * served_model.DRAWS
  assert 0.65 < judged.mean() < 0.85 and len(set(judged)) > 2
  np.testing.assert_array_equal(judged, again)
  said = [r for r in caplog.records if r.levelno == logging.WARNING]
  assert len(said) == 1 and "log-probabilities" in said[0].getMessage()
  assert f"{served_model.DRAWS} draws" in model.revision


@pytest.mark.parametrize(
  "logprobs",
  [
    None,
    {"content": []},
    {"content": [{"token": "Yes", "logprob": -0.1}]},
    {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": []}]},
    {"tokens": ["Yes"], "token_logprobs": [-0.1], "top_logprobs": [None]},
    {"tokens": ["Yes"], "token_logprobs": [-0.1], "top_logprobs": None},
    {"top_logprobs": [{"Yes": None, "No": float("nan")}]},
    [1],
  ],
)
def test_answers_without_logprobs_are_told_from_others(logprobs):
  assert yes_no.first_tokens(logprobs) == []


def test_drawn_words():
  assert yes_no.of_draws(["Yes, it is", "no", "**No**", "", "perhaps"]) == 1 / 3
  assert yes_no.of_draws(["The", ""]) is None


def test_texts_with_markup_or_without_words_are_counted(caplog):
  texts = [
    "**A dog** runs `fast` in snake_case.",
    "<b>A dog</b>",
    " \n",
    "a < b",
  ]
  with serving(lambda p, s: texts[s] if p == "x" else "Good.", sure) as stub:
    model = served_model.load(stub.url, QUICK)
    found = generate(model, ["x"] * 4)
  assert found == ["A dog runs fast in snake_case.", "", "", "a < b"]
  assert "2 of 4 texts of stub cannot be used: 1 are empty, 1 have markup" in (
    caplog.text
  )


def load(stub, name="stub", config=QUICK):
  return served_model.load(f"{stub.url}#{name}", config)


def refused(stub, *words, name="stub", config=QUICK):
  with pytest.raises(InputError) as error:
    load(stub, name, config)
  said = str(error.value)
  assert said.count("Remedy:") == 1
  for word in words:
    assert word in said, said
  return said


def test_a_server_that_is_down():
  with serving(echo, sure) as stub:
    pass
  refused(stub, stub.url, "does not answer", "refused", "start the server")


def test_a_server_that_is_slow():
  with serving(echo, sure, fault=lambda *_: 1.0) as stub:
    config = ServedConfig(timeout=0.3)
    refused(stub, "did not answer within 0.3 s", config=config)
    assert len(stub.headers) == 1  # a second try would take as long


@pytest.mark.parametrize(
  ("fault", "words"),
  [
    (
      "<html><b>Welcome</b> to a router</html>",
      ["HTML: 'Welcome to a router'"],
    ),
    ("Ollama is running", ["no JSON object: 'Ollama is running'", "/v1"]),
    ('{"models": []}', ["no list of models"]),
    ((404, {"detail": "Not Found"}), ["404 Not Found: 'Not Found'", "/v1"]),
    ((301, "", {"Location": "http://x"}), ["sends one to http://x"]),
    ((503, {"error": {"message": "Loading model"}}), ["503", "Loading model"]),
    ((401, {"error": "no"}), ["wants a key (401", "MIPD_API_KEY"]),
    ("hang up", ["does not answer"]),
  ],
)
def test_what_is_wrong_is_said_before_any_work(fault, words):
  with serving(echo, sure, fault=lambda *_: fault) as stub:
    refused(stub, stub.url, *words)


def test_a_wrong_name_is_told_the_right_ones():
  with serving(echo, sure) as stub:
    stub.models = [{"id": "llama"}, {"id": "gemma"}]
    refused(stub, "no model 'stub', but llama, gemma", f"{stub.url}#NAME")
    refused(stub, "not one model, but llama, gemma", name="")
    stub.models = []
    refused(stub, "but none", name="")


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("", "an empty text"),
    ("<think>\nThe user asks", "markup: '<think>"),
    ("<|im_start|>", "markup"),
  ],
)
def test_a_first_text_of_no_use_is_refused(text, words):
  with serving(lambda p, s: text, sure) as stub:
    refused(stub, f"stub at {stub.url}", words, "reasoning off")


@pytest.mark.parametrize(
  ("address", "said"),
  [
    ("http://user:secret@host/v1", "user, a password or a query"),
    ("http://host/v1?key=secret#m", "user, a password or a query"),
    ("http://", "no address"),
    ("http://host:port/v1", "no address"),
  ],
)
def test_bad_addresses(address, said):
  with pytest.raises(InputError, match=said) as error:
    served_model.load(address)
  assert "secret" not in str(error.value)


def test_an_address_may_say_how_to_ask():
  with serving(echo, sure) as stub:
    url = f"{stub.url}/completions#stub"
    model = served_model.load(url, QUICK)
    generate(model, ["a prompt"])
    assert stub.requests[-1]["prompt"] == "a prompt"
    other = served_model.load(f"{stub.url}/chat/completions#stub", QUICK)
  assert model.revision != other.revision


def test_the_key_goes_into_a_header_and_nowhere_else(
  monkeypatch, caplog, tmp_path
):
  caplog.set_level(logging.DEBUG)
  monkeypatch.setenv(endpoint.KEY, " sk-secret\n")
  with serving(echo, sure) as stub:
    model = load(stub)
    with model.keeping(tmp_path / "kept"):
      generate(model, ["a"])
    assert {h["Authorization"] for h in stub.headers} == {"Bearer sk-secret"}
    stub.fault = lambda *_: (401, {"error": {"message": "bad key sk-secret"}})
    said = refused(stub, "refuses the key in MIPD_API_KEY", "bad key ***")
    stub.fault = lambda *_: "<p>sk-secret</p>"
    said += refused(stub, "HTML: '***'")
  kept = (tmp_path / "kept").read_text()
  assert "secret" not in said + kept + caplog.text + model.revision
  monkeypatch.setenv(endpoint.KEY, "sk\u2014secret")
  with pytest.raises(InputError, match="no key has") as error:
    served_model.load(stub.url)
  assert "secret" not in str(error.value)


@pytest.mark.parametrize("as_date", [False, True])
def test_all_wait_as_long_as_the_server_asks(as_date):
  begun = []

  def fault(prompt, seed, times):
    begun.append(time.monotonic())
    if prompt != "a" or times:
      return None
    wait = "1"
    if as_date:
      wait = email.utils.formatdate(time.time() + 2, usegmt=True)
    return 429, {"error": "busy"}, {"Retry-After": wait}

  with serving(echo, sure) as stub:
    model = load(stub, config=ServedConfig(requests=1, timeout=2.0))
    stub.fault = fault
    assert generate(model, ["a", "b"], [1, 1]) == [echo(p, 1) for p in "ab"]
  asked = begun[1:]  # the first is the list of models
  assert len(asked) == 3 and asked[1] - asked[0] > 0.9


def test_tries_end():
  with serving(echo, sure) as stub:
    model = load(stub)
    stub.fault = lambda p, s, t: (500, "broken") if p == "b" else None
    with pytest.raises(InputError, match=r"fails \(500 .*: 'broken'\)"):
      generate(model, ["a", "b"])
    tries = [x for x in stub.requests if x["messages"][0]["content"] == "b"]
    assert len(tries) == endpoint.PATIENCE


def test_a_refused_prompt_is_asked_once_and_what_arrived_is_kept(tmp_path):
  def fault(prompt, seed, times):
    if prompt == "too long":
      time.sleep(0.2)
      return 400, {"error": {"message": "context length is 8"}}
    return None

  with serving(echo, sure) as stub:
    model = load(stub)
    stub.fault = fault
    prompts = ["too long", *"abc"]
    with (
      model.keeping(tmp_path / "kept"),
      pytest.raises(InputError, match=r"refuses a request .*context length"),
    ):
      generate(model, prompts)
    stub.fault, before = None, dict(stub.answered)
    with model.keeping(tmp_path / "kept"):
      generate(model, prompts)
    for key, times in before.items():
      assert stub.answered[key] == times
    assert stub.answered["too long", 0] == 1


def test_another_model_after_a_lost_connection_is_noticed():
  with serving(echo, sure) as stub:
    model = load(stub)

    def fault(prompt, seed, times):
      if prompt == "a":
        stub.models = [stub_server.MODEL | {"meta": {"size": 7}}]
        return "hang up"
      return None

    stub.fault = fault
    with pytest.raises(
      InputError, match=r"another model now.*meta was .*3"
    ) as e:
      generate(model, ["a"])
    assert "7" in e.value.problem and "former one" in e.value.remedy
    other = load(stub)
  assert other.revision != model.revision


def test_a_restarted_server_of_the_same_model_is_the_same():
  with serving(echo, sure) as stub:
    before = load(stub).revision
    stub.models = [
      {
        **stub_server.MODEL,
        "created": 2,
        "max_model_len": 99,
        "meta": {"size": 3, "n_ctx": 99},
      }
    ]
    assert load(stub).revision == before


def test_what_waits_can_be_stopped():
  with serving(echo, sure, fault=lambda *_: 1.5) as stub:
    asking = endpoint.Endpoint(stub.url, 20.0)
    threading.Timer(0.2, lambda: asking.stop(at_once=True)).start()
    start = time.monotonic()
    with pytest.raises(endpoint.Stopped):
      asking.ask("/models", None, dict)
    assert time.monotonic() - start < 1.2


def test_a_journal_loses_no_more_than_half_a_line(tmp_path):
  path = tmp_path / "sub" / "kept"
  first = journal.Journal(path)
  first.add("k1", "é\u2028\n")
  first.add("k2", None)
  first.close()
  whole = path.read_bytes()
  for cut in range(1, len(whole)):
    path.write_bytes(whole[:cut])
    again = journal.Journal(path)
    assert ("k1" in again) == (cut >= whole.index(b"\n") + 1)
    assert "k2" not in again
    again.add("k3", 0.5)
    again.close()
    last = json.loads(path.read_text().splitlines()[-1])
    assert last == {"key": "k3", "answer": 0.5}
  path.write_bytes(whole)
  again = journal.Journal(path)
  assert again["k1"] == "é\u2028\n" and again["k2"] is None
  again.close()
  path.write_bytes(whole.replace(b'{"key": "k1"', b'"key": "k1"'))
  with pytest.raises(InputError, match="kept, line 1"):
    journal.Journal(path)
