"""Turns lists of words into the arrays that the student reads.

Words of the workdir's vocabulary keep their rows of training, bit for bit.
Others are embedded by the same prompts and text encoder; the common directions
that the cache keeps are subtracted (`teachers.labels`).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import vocabulary
from mipd_jax.inference import lexicon, programs
from mipd_jax.inference.lexicon import Banks, Frame, Lexicon, NounList
from mipd_jax.inference.texts import Texts
from mipd_jax.inference.words import DEFAULT_ROLES, Verb, Word, Words
from mipd_jax.teachers import labels


class Nouns:
  """Makes lists of nouns.

  A list of training's classes is ranked as in the evaluation: by the student's
  own score of each. If one word of a list is new, all are scored by text
  alone: the classifier has no column for it, and if it helped only the others,
  the new word would hardly ever be chosen (docs/predict.md has figures).
  """

  def __init__(self, known: vocabulary.Vocabulary, banks: Banks, texts: Texts):
    self._known, self._texts = known, texts
    self._bank, self._center = banks["noun_text"], banks["noun_center"]
    self._index = _names(known)

  def make(self, words: Sequence[Word] | None) -> NounList:
    """The list, or the vocabulary's own if None."""
    if words is None:
      return self._own()
    ids = [self._id(word) for word in words]
    new = [word for word, i in zip(words, ids, strict=True) if i is None]
    text = np.zeros((lexicon.bucket(len(words)), self._bank.shape[1]), "f4")
    column = np.zeros(len(text), np.int32)
    embeddings = iter(self._embed(new))
    for row, index in enumerate(ids):
      text[row] = next(embeddings) if index is None else self._bank[index]
      column[row] = index or 0
    lexicon.warn_of_alike(text[: len(ids)], [w.name for w in words], "nouns")
    blank = self._index.get(vocabulary.BLANK)
    return NounList(
      names=tuple(
        "" if index == blank else word.name
        for word, index in zip(words, ids, strict=True)
      ),
      classes=tuple(None if i is None else self._known.nouns[i] for i in ids),
      rule=programs.BY_TEXT if new else programs.AS_EVALUATED,
      arrays={
        "text": text,
        "column": column,
        "mask": np.arange(len(text)) < len(words),
      },
    )

  def _own(self) -> NounList:
    """All classes except padding, which fills unused slots and is no noun."""
    column = np.array(_candidates(self._known), np.int32)
    return NounList(
      names=tuple(_word(self._known, i) for i in column),
      classes=tuple(self._known.nouns[i] for i in column),
      rule=programs.AS_EVALUATED,
      arrays={
        "text": self._bank[column],
        "column": column,
        "mask": np.ones(len(column), bool),
      },
    )

  def _embed(self, new: Sequence[Word]) -> Iterable[np.ndarray]:
    if not new:
      return ()
    named = [(word.name, word.definition) for word in new]
    prompts = labels.noun_prompts(lexicon.as_vocabulary(nouns=named))
    return labels.center(self._texts.bank(prompts), self._center)

  def _id(self, word: Word) -> int | None:
    """Its class; None for a new word or one with another meaning."""
    index = self._index.get(word.name.casefold())
    if index is None or not word.definition:
      return index
    same = word.definition == self._known.noun_definitions[index]
    return index if same else None


def _names(known: vocabulary.Vocabulary) -> dict[str, int]:
  """Classes by name, and by commonest word; the first of homonyms.

  Without padding: in a list, "pad" or "padding" means the object.
  """
  index_of: dict[str, int] = {}
  for index in _candidates(known):
    index_of.setdefault(_word(known, index).casefold(), index)
  index_of.pop("", None)
  return index_of | {known.nouns[i].casefold(): i for i in _candidates(known)}


def _candidates(known: vocabulary.Vocabulary) -> list[int]:
  """The classes that a role may be filled with."""
  return [i for i, n in enumerate(known.nouns) if n != vocabulary.PAD]


def _word(known: vocabulary.Vocabulary, noun: int) -> str:
  """The first gloss of a noun class; "" for blank."""
  name, glosses = known.nouns[noun], known.noun_glosses[noun]
  if name == vocabulary.BLANK:
    return ""
  return glosses[0].replace("_", " ") if glosses else name


class Lexicons:
  """Makes lexicons of one workdir."""

  def __init__(
    self,
    known: vocabulary.Vocabulary,
    banks: Banks,
    texts: Texts,
    *,
    queries_from_text: bool,
  ):
    """`queries_from_text`: whether the student has queries for new roles."""
    self._known, self._banks, self._texts = known, banks, texts
    self._from_text = queries_from_text
    self._verbs = {name.casefold(): i for i, name in enumerate(known.verbs)}
    self._roles = {name.casefold(): i for i, name in enumerate(known.roles)}
    self._nouns = Nouns(known, banks, texts)

  def make(self, words: Words) -> Lexicon:
    """Resolves the words.

    Raises:
      InputError: a frame is given for a verb that is not in the list, or the
        student has no queries for these words.
    """
    verbs = words.verbs
    if verbs is None:
      verbs = tuple(Verb(name) for name in self._known.verbs)
    verbs = _with_frames(verbs, words.frames)
    ids = [self._verb_id(verb) for verb in verbs]
    roles = _Roles(self._known, self._roles)
    frames = tuple(
      self._frame(verb, index, roles)
      for verb, index in zip(verbs, ids, strict=True)
    )
    self._check_queries(verbs, ids, roles)
    verb_text = self._verb_text(words, verbs, ids)
    banks = {**self._banks, "role_text": self._role_text(roles)}
    rows = range(len(verbs))
    if self._from_text:
      banks["verb_text"] = verb_text
    else:
      rows = ids
    return Lexicon(
      verbs=tuple(verb.name for verb in verbs),
      frames=frames,
      verb_rows=tuple(rows),
      verb_text=verb_text,
      banks=banks,
      nouns=self._nouns.make(words.nouns),
    )

  def _verb_id(self, verb: Verb) -> int | None:
    """Its place in the vocabulary; None for a new word or a new meaning."""
    index = self._verbs.get(verb.name.casefold())
    if index is None or not verb.definition:
      return index
    same = verb.definition == self._known.verb_definitions[index]
    return index if same else None

  def _frame(self, verb: Verb, index: int | None, roles: "_Roles") -> Frame:
    known = self._verbs.get(verb.name.casefold()) if index is None else index
    abstract = verb.abstract
    if verb.roles is not None:
      wanted = verb.roles
    elif known is not None:
      wanted = [Word(name) for name in self._known.frame_roles(known)]
    else:
      wanted = [Word(name) for name in DEFAULT_ROLES]
    if not abstract and known is not None:
      abstract = self._known.verb_abstracts[known]
    names = tuple(role.name for role in wanted)
    return Frame(names, tuple(map(roles.row, wanted)), abstract)

  def _check_queries(self, verbs, ids, roles) -> None:
    if self._from_text:
      return
    new = [v.name for v, i in zip(verbs, ids, strict=True) if i is None]
    if new or roles.new:
      name = new[0] if new else roles.new[0].name
      raise InputError(
        f"this student has no role query for {name!r}: it has learnt one for "
        "each verb and role of its vocabulary (model.role_queries="
        "'embedding')",
        "use words of the vocabulary, or train with "
        "--config.model.role_queries=text (preset mipd)",
      )

  def _verb_text(self, words: Words, verbs: Sequence[Verb], ids) -> np.ndarray:
    own = self._banks["verb_text"]
    if words.verbs is None:
      return own
    rows = np.zeros((lexicon.bucket(len(verbs)), own.shape[1]), np.float32)
    embeddings = iter(self._embed_verbs(verbs, ids))
    for row, index in enumerate(ids):
      rows[row] = next(embeddings) if index is None else own[index]
    lexicon.warn_of_alike(rows[: len(ids)], [v.name for v in verbs], "verbs")
    return rows

  def _embed_verbs(self, verbs, ids) -> Iterable[np.ndarray]:
    """Rows of the new verbs only."""
    pairs = zip(verbs, ids, strict=True)
    new = [(verb.name, verb.definition) for verb, i in pairs if i is None]
    if not new:
      return ()
    prompts = labels.verb_prompts(lexicon.as_vocabulary(verbs=new))
    return self._texts.bank(prompts)

  def _role_text(self, roles: "_Roles") -> np.ndarray:
    own = self._banks["role_text"]
    if not roles.new:
      return own
    named = [(role.name, role.definition) for role in roles.new]
    prompts = labels.role_prompts(lexicon.as_vocabulary(roles=named))
    new = labels.center(self._texts.bank(prompts), self._banks["role_center"])
    filler = lexicon.bucket(len(new)) - len(new)
    return np.pad(np.concatenate([own, new]), ((0, filler), (0, 0)))


class _Roles:
  """Gives every role a row: the vocabulary's first, then new ones."""

  def __init__(self, known: vocabulary.Vocabulary, index: Mapping[str, int]):
    self._known, self._index = known, index
    self._rows: dict[tuple[str, str], int] = {}
    self.new: list[Word] = []

  def row(self, role: Word) -> int:
    index = self._index.get(role.name.casefold())
    if index is not None:
      own = self._known.role_definitions[index]
      if role.definition in ("", own):
        return index
    key = (role.name.casefold(), role.definition)
    if key not in self._rows:
      self._rows[key] = len(self._known.roles) + len(self.new)
      self.new.append(role)
    return self._rows[key]


def _with_frames(
  verbs: Sequence[Verb], frames: Mapping[str, tuple[Word, ...]]
) -> tuple[Verb, ...]:
  wanted = {name.casefold(): roles for name, roles in frames.items()}
  names = {verb.name.casefold() for verb in verbs}
  absent = [name for name in frames if name.casefold() not in names]
  if absent:
    raise InputError(
      f"a frame is given for {absent[0]!r}, which is not in the list of verbs",
      "add the verb to the list, or leave its frame out",
    )
  return tuple(
    dataclasses.replace(verb, roles=wanted[key]) if key in wanted else verb
    for verb in verbs
    for key in [verb.name.casefold()]
  )
