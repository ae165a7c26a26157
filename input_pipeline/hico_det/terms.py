"""HICO-DET's interactions as a vocabulary of verbs, roles and nouns.

What embeds labels, scores them by a teacher or writes texts about them knows
`input_pipeline.ov_swig.builder.vocabulary.Vocabulary`. An interaction is a verb there, called
"a person riding a bicycle", so that its prompt is "a photo of a person riding
a bicycle"; it has two roles, and the objects are the nouns.
"""

from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.ov_swig import vocabulary

ROLES = ("person", "object")
_PHOTO = "a photo of "


def as_vocabulary(words: Vocabulary) -> vocabulary.Vocabulary:
  """The same names in the other form; numbers stay."""
  count, things = len(words), len(words.objects)
  return vocabulary.Vocabulary(
    verbs=tuple(text.removeprefix(_PHOTO) for text in words.texts),
    roles=ROLES,
    nouns=words.objects,
    frames=((0, 1),) * count,
    verb_definitions=("",) * count,
    verb_abstracts=("",) * count,
    role_definitions=("",) * len(ROLES),
    noun_glosses=tuple((name.replace("_", " "),) for name in words.objects),
    noun_definitions=("",) * things,
  )
