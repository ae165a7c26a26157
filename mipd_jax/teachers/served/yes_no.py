"""The probability of "yes" from what a server tells of an answer.

Servers tell the likeliest first tokens in one of two forms:

  {"tokens": [...], "token_logprobs": [...],
   "top_logprobs": [{token: logprob}]}
  {"content": [{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}]}

Some take the question for log-probabilities and answer without any.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

YES, NO = "yes", "no"
# A blank in a token, as two kinds of tokenizers write it.
_BLANKS = re.compile(r"[\sĠ▁]+")
_AROUND = "\"'`*.,:;!?()"


def first_tokens(logprobs: Any) -> list[tuple[str, float]]:
  """(token, log-probability) of the likeliest first tokens of an answer.

  Args:
    logprobs: of a choice, in either form.

  Returns:
    [] if it holds none.
  """
  if not isinstance(logprobs, Mapping):
    return []
  for key in ("content", "top_logprobs"):
    tokens = logprobs.get(key)
    first = tokens[0] if isinstance(tokens, list) and tokens else None
    if isinstance(first, Mapping):
      break
  else:
    return []
  if key == "top_logprobs":
    pairs = list(first.items())
  else:
    likeliest = first.get("top_logprobs")
    pairs = [
      (one.get("token"), one.get("logprob"))
      for one in (likeliest if isinstance(likeliest, list) else ())
      if isinstance(one, Mapping)
    ]
  return [(x, float(y)) for x, y in pairs if _is_known(x, y)]


def _is_known(token: Any, logprob: Any) -> bool:
  number = isinstance(logprob, (int, float)) and not isinstance(logprob, bool)
  return isinstance(token, str) and number and math.isfinite(logprob)


def of_tokens(tokens: Iterable[tuple[str, float]]) -> float | None:
  """p(yes) / (p(yes) + p(no)), each over all its spellings; None if neither."""
  shares = {YES: 0.0, NO: 0.0}
  for token, logprob in tokens:
    word = _plain(token)
    if word in shares:
      shares[word] += math.exp(min(logprob, 0.0))
  whole = shares[YES] + shares[NO]
  return shares[YES] / whole if whole else None


def of_draws(texts: Iterable[str]) -> float | None:
  """The share of yes among drawn answers that say yes or no; None if none."""
  words = [_plain((text.split() or [""])[0]) for text in texts]
  yes, no = words.count(YES), words.count(NO)
  return yes / (yes + no) if yes + no else None


def _plain(word: str) -> str:
  """A word without blanks, capitals and the marks around it."""
  return _BLANKS.sub("", word).strip(_AROUND).lower()
