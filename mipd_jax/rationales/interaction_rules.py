"""What a rationale of an interaction must hold; `rules` of pairs.

A verb counts as named by any form of its name ("rides" for "ride"); an unseen
interaction by its verb and its object in one sentence.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mipd_jax.rationales import prompts
from mipd_jax.rationales.frame import AnnotatedFrame
from mipd_jax.rationales.judging import JrgConfig
from mipd_jax.rationales.rules import Fault, Rules
from mipd_jax.rationales.stems import contains, stems

if TYPE_CHECKING:
  from input_pipeline.hico_det.vocabulary import Vocabulary

SEPARATOR = ", "  # between the verbs of an activity
_SENTENCE = re.compile(r"[.!?;\n]")


class InteractionRules(Rules):
  """Checks texts of one split against their frames.

  Args:
    words: verbs, objects and interactions.
    allowed: interactions that a text may name.
    config: style and length.
  """

  def __init__(
    self, words: "Vocabulary", allowed: Iterable[int], config: JrgConfig
  ):
    self._set_form(prompts.STYLES[config.style], config.max_words)
    seen = set(allowed)
    self._unseen = [
      (
        words.verbs[words.verb_of[i]].replace("_", " "),
        words.objects[words.object_of[i]].replace("_", " "),
      )
      for i in range(len(words))
      if i not in seen and not words.no_interaction[i]
    ]

  def without_leaks(self, frame: AnnotatedFrame) -> AnnotatedFrame:
    """The frame: no definition is in it."""
    return frame

  def _leak(self, text: str, frame: AnnotatedFrame) -> list[Fault]:
    told = [stems(one) for one in _SENTENCE.split(text)]
    own = [stems(a.sentence) for a in (frame.true, frame.wrong)]
    return [
      Fault("unseen verb", f"it names the interaction {verb} {thing!r}")
      for verb, thing in self._unseen
      if any(contains(x, verb) and contains(x, thing) for x in told)
      and not any(contains(x, verb) and contains(x, thing) for x in own)
    ]

  def _glimpse_pos(self, text: str, frame: AnnotatedFrame) -> list[Fault]:
    words, faults = stems(text), []
    if not any(contains(words, x) for x in _verbs(frame.true.verb)):
      told = f"it does not name the activity {frame.true.verb!r}"
      faults.append(Fault("verb not named", told))
    named = [one for one in frame.instances if one.role != "person"]
    if not any(contains(words, one.noun) for one in named):
      told = f"it names none of {', '.join(one.noun for one in named)}"
      faults.append(Fault("object not named", told))
    return faults

  def _glimpse_neg(self, text: str, frame: AnnotatedFrame) -> list[Fault]:
    words, faults = stems(text), []
    wrong = _verbs(frame.wrong.verb)
    for verb in _verbs(frame.true.verb):
      if verb not in wrong and contains(words, verb):
        told = f"it names the true activity {verb!r}"
        faults.append(Fault("true verb named", told))
    if not any(contains(words, x) for x in wrong):
      told = f"it does not name the activity {frame.wrong.verb!r}"
      faults.append(Fault("verb not named", told))
    return faults


def _verbs(joined: str) -> list[str]:
  return joined.split(SEPARATOR)
