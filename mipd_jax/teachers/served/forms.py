"""Requests and answers in the API's two forms: chats and completions."""

import re
from collections.abc import Mapping
from typing import Any

from mipd_jax.teachers.served import yes_no
from mipd_jax.teachers.served.endpoint import CHAT, Unreadable

# Log-probabilities that are asked for: more, most servers refuse.
TOP = 20
_HALF = re.compile("[\ud800-\udfff]")
_TAG = re.compile(r"</?[A-Za-z][\w-]*(?:\s[^<>]*)?/?>|<\|")
_EMPHASIS = re.compile(r"\*+|`+|(?<!\w)_+|_+(?!\w)")


def request(form: str, name: str, prompt: str) -> dict[str, Any]:
  """The beginning of a request.

  Args:
    form: `endpoint.CHAT` or `endpoint.COMPLETIONS`.
    name: of the model.
    prompt: the user's only turn of a chat, or what is to be continued.
  """
  if form == CHAT:
    return {"model": name, "messages": [{"role": "user", "content": prompt}]}
  return {"model": name, "prompt": prompt}


def asking_logprobs(form: str) -> dict[str, Any]:
  """What a request adds to be told log-probabilities."""
  if form == CHAT:
    return {"logprobs": True, "top_logprobs": TOP}
  return {"logprobs": TOP}


def choice(answer: Mapping[str, Any]) -> dict[str, Any]:
  """The first choice of an answer.

  Raises:
    Unreadable: there is none, or it has no text.
  """
  choices = answer.get("choices")
  if not isinstance(choices, list) or not choices:
    raise Unreadable("no choices")
  if not isinstance(choices[0], dict):
    raise Unreadable("a choice that is no object")
  text_of(choices[0])
  return choices[0]


def text_of(one: Mapping[str, Any]) -> str:
  """The text of a choice; "" for the null of a model that only reasoned."""
  message, found = one.get("message"), one.get("text")
  if isinstance(message, Mapping):
    found = message.get("content")
    if found is None:
      return ""
  if not isinstance(found, str):
    raise Unreadable("a choice without a text")
  return _HALF.sub("\ufffd", found)


def text(answer: Mapping[str, Any]) -> str:
  """The text of an answer."""
  return text_of(choice(answer))


def judgement(answer: Mapping[str, Any]) -> float | None:
  """p(yes) of an answer; None if it is neither yes nor no.

  Raises:
    Unreadable: it has no log-probabilities.
  """
  tokens = yes_no.first_tokens(choice(answer).get("logprobs"))
  if not tokens:
    raise Unreadable("no log-probabilities, though it had some before")
  return yes_no.of_tokens(tokens)


def usable(raw: str) -> str:
  """A text without marks of emphasis; "" if it has tags."""
  return "" if _TAG.search(raw) else _EMPHASIS.sub("", raw).strip()
