"""A language model behind an OpenAI-compatible server: vLLM, llama.cpp, ...

It writes and judges texts as `language_model.LanguageModel` does, with many
requests at a time. Texts are kept as they arrive (`keeping`), so a killed run
asks for none a second time. With the same answers the results are the same, in
whatever order these come.

What the server leaves open is found out by a few short requests when it is
loaded: whether it takes chats (with the model's own template) or plain
prompts, and whether it tells log-probabilities. Without them a judgement is
drawn `DRAWS` times.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress
from mipd_jax.rationales.judging import ServedConfig
from mipd_jax.teachers.served import forms, yes_no
from mipd_jax.teachers.served.endpoint import (
  AGAIN,
  CHAT,
  COMPLETIONS,
  Address,
  Endpoint,
  Refusal,
  Unreadable,
)
from mipd_jax.teachers.served.journal import Journal

# Part of the revision: raise it when a request or the use of an answer changes.
PROTOCOL = "served-1"
DRAWS, _DRAWN_TOKENS = 8, 4
# Of an entry of /models: what says which model it is. The rest (when it was
# started, how long a context it was given) may differ between two runs.
_IDENTITY = ("id", "owned_by", "root", "parent", "meta")
_OF_THE_RUN = ("n_ctx", "n_ctx_slot", "n_slots")
# Limits of the first requests: a mistake is told soon.
_FIRST: Mapping[str, Any] = {"patience": 3, "timeout": 60.0}
_PROBE = (
  "Facts about an image.\nA dog runs over a meadow.\n\nTask: Say in one short "
  "sentence what is going on in the image.\nAnswer:"
)
_QUESTION = (
  "Facts: the dog is black.\n\nStatement: The dog is black.\n\nAccording to "
  "the facts, is the statement true? Answer yes or no.\nAnswer:"
)
_PROBE_TOKENS, _PROBE_SEEDS = 48, (1, 2, 3)
_LOG = logging.getLogger(__name__)


class ServedModel:
  """See `judging.Writer`.

  Attributes:
    name: of the model, as the server lists it.
    revision: that name, how it is asked, and a digest of all that the server
      says of it and of `PROTOCOL`.
  """

  def __init__(
    self,
    endpoint: Endpoint,
    identity: Mapping[str, Any],
    form: str,
    requests: int,
    *,
    has_logprobs: bool,
  ):
    """See `load`."""
    self._endpoint, self._identity = endpoint, dict(identity)
    self._form, self._requests = form, requests
    self._has_logprobs = has_logprobs
    self._journal: Journal | None = None
    self._is_announced = False
    self.name = str(identity["id"])
    self.revision = _revision(identity, form, has_logprobs)
    endpoint.after_loss = self._check_identity

  def generate(
    self,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[int],
  ) -> list[str]:
    """Answers each prompt; "" for an answer that has markup in it.

    Args:
      prompts: any number of them.
      max_new_tokens: length at which a text is cut off.
      temperature: of the draw.
      seeds: one per prompt.

    Raises:
      InputError: the server does not answer, refuses a prompt, or serves
        another model by now. What has arrived is kept.
    """
    raw = self._ask(
      [
        self._request(prompt, max_new_tokens, temperature, seed)
        for prompt, seed in zip(prompts, seeds, strict=True)
      ],
      forms.text,
      "texts",
    )
    texts = [forms.usable(text) for text in raw]
    if unusable := texts.count(""):
      marked = sum(
        bool(x.strip()) for x, y in zip(raw, texts, strict=True) if not y
      )
      _LOG.warning(
        "%d of %d texts of %s cannot be used: %d are empty, %d have markup.",
        unusable,
        len(texts),
        _short(self.name),
        unusable - marked,
        marked,
      )
    return texts

  def answer_probability(self, prompts: Sequence[str]) -> np.ndarray:
    """p(yes) / (p(yes) + p(no)) of the first token of the answer.

    Args:
      prompts: questions.

    Returns:
      float32 [n]; NaN where neither is among the likeliest tokens, or was
      drawn: such a question is not judged.

    Raises:
      InputError: as `generate`.
    """
    if self._has_logprobs:
      judged = self._ask(
        [self._question(prompt) for prompt in prompts],
        forms.judgement,
        "judgements",
      )
    else:
      judged = self._drawn(prompts)
    if neither := judged.count(None):
      _LOG.warning(
        "%d of %d answers of %s are neither yes nor no: these texts are not "
        "judged, and not taken.",
        neither,
        len(judged),
        _short(self.name),
      )
    return np.array([np.nan if p is None else p for p in judged], np.float32)

  @contextlib.contextmanager
  def keeping(self, path: str | os.PathLike) -> Iterator[None]:
    """Inside, every answer is kept in a file, and none is asked for again."""
    self._journal = Journal(path)
    try:
      yield
    finally:
      self._journal.close()
      self._journal = None

  def _drawn(self, prompts: Sequence[str]) -> list[float | None]:
    requests = [
      self._request(prompt, _DRAWN_TOKENS, 1.0, _seed(prompt, draw))
      for prompt in prompts
      for draw in range(DRAWS)
    ]
    words = self._ask(requests, forms.text, "draws")
    return [
      yes_no.of_draws(words[start : start + DRAWS])
      for start in range(0, len(words), DRAWS)
    ]

  def _request(
    self, prompt: str, max_tokens: int, temperature: float, seed: int
  ) -> dict[str, Any]:
    """The request for a text.

    Seeds are below 2**31: some servers read signed numbers, and llama.cpp
    takes the largest unsigned one for none.
    """
    return forms.request(self._form, self.name, prompt) | {
      "max_tokens": max_tokens,
      "temperature": temperature,
      "top_p": 1,
      "seed": seed % 2**31,
    }

  def _question(self, prompt: str) -> dict[str, Any]:
    return self._request(prompt, 1, 0, 0) | forms.asking_logprobs(self._form)

  def _ask(
    self,
    requests: Sequence[Mapping[str, Any]],
    read: Callable[[dict[str, Any]], Any],
    what: str,
  ) -> list[Any]:
    """What was read from the answer to each request; each is sent once."""
    keys = [_key(self._form, request) for request in requests]
    known = self._journal or {}
    found = {key: known[key] for key in keys if key in known}
    pending = {
      key: request
      for key, request in zip(keys, requests, strict=True)
      if key not in found
    }
    if pending:
      self._announce()
      self._endpoint.resume()
      self._check_identity()
      total, asking = len(pending) + len(found), f"asking {_short(self.name)}"
      with Progress(asking, total, what, done=len(found)) as progress:
        try:
          found |= self._answers(pending, read, progress)
        except Refusal as refusal:
          raise self._refused(refusal) from None
    return [found[key] for key in keys]

  def _answers(
    self,
    pending: Mapping[str, Mapping[str, Any]],
    read: Callable[[dict[str, Any]], Any],
    progress: Progress,
  ) -> dict[str, Any]:
    """What was read from the answers, many requests at a time.

    After an error those under way end first, unless it came from the keyboard.
    """

    def one(key: str, request: Mapping[str, Any]) -> tuple[str, Any]:
      answer = self._endpoint.ask(self._form, request, read)
      if self._journal:
        self._journal.add(key, answer)
      return key, answer

    found = {}
    pool = concurrent.futures.ThreadPoolExecutor(self._requests)
    started = [pool.submit(one, *item) for item in pending.items()]
    try:
      for future in concurrent.futures.as_completed(started):
        key, answer = future.result()
        found[key] = answer
        progress.advance()
    except BaseException as error:
      self._endpoint.stop(at_once=isinstance(error, KeyboardInterrupt))
      raise
    finally:
      pool.shutdown(cancel_futures=True)
    return found

  def _announce(self) -> None:
    """Says once who is asked, and how it judges without log-probabilities."""
    if self._is_announced:
      return
    self._is_announced = True
    _LOG.info("Asking %s: %s.", self._endpoint.url, self.revision)
    if not self._has_logprobs:
      _LOG.warning(
        "%s tells no log-probabilities of %s: each judgement takes %d drawn "
        "answers instead of one.",
        self._endpoint.url,
        _short(self.name),
        DRAWS,
      )

  def _refused(self, refusal: Refusal) -> InputError:
    self._endpoint.resume()
    self._check_identity()  # it may be another model by now
    return InputError(
      f"{self._endpoint.url} refuses a request to {self.name} ({refusal.said})",
      "if a prompt is too long, start the server with a longer context, or "
      f"choose the terse style; {AGAIN}",
    )

  def _check_identity(self) -> None:
    """Raises InputError if the server has another model by now."""
    now = _identity(self._endpoint, self.name)
    if now != self._identity:
      differ = [k for k in _IDENTITY if now.get(k) != self._identity.get(k)]
      changes = ", ".join(
        f"{key} was {self._identity.get(key)!r:.200}, is {now.get(key)!r:.200}"
        for key in differ
      )
      raise InputError(
        f"{self._endpoint.url} serves another model now than when this run "
        f"began: {changes}",
        f"serve the former one again; {AGAIN}",
      )


def load(address: str, config: ServedConfig | None = None) -> ServedModel:
  """Finds a served model and tries it with a few short requests.

  Args:
    address: http://HOST:PORT/v1#NAME; NAME may be left out if the server has
      one model. .../v1/completions#NAME or .../v1/chat/completions#NAME chooses
      how it is asked; else by chat where it can.
    config: requests at a time, and how long an answer may take.

  Raises:
    InputError: the server is down or slow, has no such model, wants a key, or
      answers with nothing of use.
  """
  config, parsed = config or ServedConfig(), Address.parse(address)
  endpoint = Endpoint(parsed.url, config.timeout)
  identity = _identity(endpoint, parsed.name, **_FIRST)
  form, has_logprobs = _form(endpoint, identity["id"], parsed.form)
  return ServedModel(
    endpoint, identity, form, config.requests, has_logprobs=has_logprobs
  )


def _identity(endpoint: Endpoint, name: str, **limits: Any) -> dict[str, Any]:
  """What the server says of a model; of its only one if the name is ""."""
  remedy = "give the address of the API itself, which mostly ends in /v1"
  try:
    listed = endpoint.ask("/models", None, _models, checked=False, **limits)
  except Refusal as refusal:
    raise InputError(
      f"{endpoint.url}/models does not list models ({refusal.said})", remedy
    ) from None
  names = [str(one["id"]) for one in listed]
  if (not name and len(names) != 1) or (name and name not in names):
    wanted = f"no model {name!r}" if name else "not one model"
    raise InputError(
      f"{endpoint.url} has {wanted}, but {', '.join(names) or 'none'}",
      f"name one of them: {endpoint.url}#NAME",
    )
  found = listed[names.index(name) if name else 0]
  identity = {key: found.get(key) for key in _IDENTITY}
  if isinstance(identity["meta"], dict):
    identity["meta"] = {
      k: x for k, x in identity["meta"].items() if k not in _OF_THE_RUN
    }
  return identity


def _models(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
  data = answer.get("data")
  if not isinstance(data, list) or not all(
    isinstance(one, dict) and "id" in one for one in data
  ):
    raise Unreadable("no list of models")
  return data


def _form(endpoint: Endpoint, name: str, form: str) -> tuple[str, bool]:
  """How a model is asked, and whether log-probabilities come with it.

  Args:
    endpoint: the server.
    name: of the model.
    form: the only one to try; "" for both.
  """

  def ask(path: str, prompt: str, **more: Any) -> dict[str, Any]:
    return endpoint.ask(
      path,
      forms.request(path, name, prompt) | {"temperature": 0.7} | more,
      forms.choice,
      checked=False,
      **_FIRST,
    )

  refusals = []
  for path in (form,) if form else (CHAT, COMPLETIONS):
    try:
      for seed in _PROBE_SEEDS:
        choice = ask(path, _PROBE, max_tokens=_PROBE_TOKENS, seed=seed)
        if forms.usable(text := forms.text_of(choice)):
          break
      else:
        raise _useless(endpoint.url, name, text)
    except Refusal as refusal:
      refusals.append(f"{path}: {refusal.said}")
      continue
    try:
      choice = ask(
        path, _QUESTION, max_tokens=1, seed=1, **forms.asking_logprobs(path)
      )
    except Refusal:
      return path, False
    except InputError:  # some fail where others refuse; or it went down
      ask(path, _QUESTION, max_tokens=1, seed=1)
      return path, False
    return path, bool(yes_no.first_tokens(choice.get("logprobs")))
  raise InputError(
    f"{endpoint.url} does not let {name} write: {'; '.join(refusals)}",
    "give the address of a server of a language model that writes texts",
  )


def _useless(url: str, name: str, text: str) -> InputError:
  """The error for a server whose first texts are of no use."""
  what = f"markup: {text.strip()!r:.200}" if text.strip() else "an empty text"
  return InputError(
    f"{name} at {url} answers a plain question with {what}",
    "if it reasons before it answers, start the server with its reasoning "
    "off; else give it its right chat template, or choose another model",
  )


def _revision(
  identity: Mapping[str, Any], form: str, has_logprobs: bool
) -> str:
  asked = form.strip("/").split("/")[0]
  judged = "log-probabilities" if has_logprobs else f"{DRAWS} draws"
  content = json.dumps([identity, asked, judged, PROTOCOL], sort_keys=True)
  digest = hashlib.sha256(content.encode()).hexdigest()[:16]
  return f"{identity['id']}, served ({asked}, {judged}), {digest}"


def _short(name: str) -> str:
  """A name without the folders of a file's path or the owner of an id."""
  return name.rstrip("/").rpartition("/")[2]


def _key(form: str, request: Mapping[str, Any]) -> str:
  """Names a request in the journal."""
  content = json.dumps([form, request], sort_keys=True)
  return hashlib.sha256(content.encode()).hexdigest()[:32]


def _seed(prompt: str, draw: int) -> int:
  digest = hashlib.sha256(f"{draw}/{prompt}".encode()).digest()
  return int.from_bytes(digest[:4], "little")
