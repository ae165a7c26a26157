"""Text banks: the names of verbs, roles and nouns as CLIP embeddings.

Every class is described by a few prompts; its embedding is the mean of the
prompts' unit embeddings, scaled to unit length again (Radford et al. 2021,
section 3.1.4, "prompt engineering and ensembling"). The reference embeds bare
names, and WordNet ids for nouns (METHOD table, row 5).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.vocabulary import BLANK, OOV, PAD, Vocabulary
from mipd_jax.devices import sharding
from mipd_jax.rationales import wording
from mipd_jax.teachers.interfaces import TextEncoder

# Part of the cache's plan: raise it when any prompt changes.
VERSION = "labels-3"
# Words kept of a definition; CLIP reads 77 tokens.
_DEFINITION_WORDS = 40
# WordNet lists a noun's words from common to rare; the first few are used.
_SYNONYMS = 2
# Batches are cut to the longest text in them, rounded up to this.
_LENGTH_STEP = 8


def verb_prompts(vocabulary: Vocabulary) -> list[list[str]]:
  """Per verb: its name with its meaning, in two wordings.

  A prompt with the name alone is used only without a definition: in the small
  world it cost 8 points of zero-shot accuracy on unseen verbs (25 to 17.5 %)
  and changed seen ones by less than 1.
  """
  prompts = []
  for verb, definition in zip(
    vocabulary.verbs, vocabulary.verb_definitions, strict=True
  ):
    photo, meaning = f"a photo of {verb}", _meaning(definition)
    with_meaning = [f"{photo}, {meaning}", f"{verb}: {meaning}"]
    prompts.append(with_meaning if meaning else [photo])
  return prompts


def role_prompts(vocabulary: Vocabulary) -> list[list[str]]:
  """Per role: its name, and its name with its meaning."""
  return [
    _named(f"the {role} of an activity", role, definition)
    for role, definition in zip(
      vocabulary.roles, vocabulary.role_definitions, strict=True
    )
  ]


def noun_prompts(vocabulary: Vocabulary) -> list[list[str]]:
  """Per noun class: its commonest word, with others, with its definition.

  Never a WordNet id; blank, oov and Pad have words of the vocabulary
  ("nothing", "something else", "padding").
  """
  prompts = []
  for noun, glosses, definition in zip(
    vocabulary.nouns,
    vocabulary.noun_glosses,
    vocabulary.noun_definitions,
    strict=True,
  ):
    name = wording.noun_name(glosses)
    photo = f"a photo of {wording.with_article(name)}"
    if noun in (BLANK, OOV, PAD):
      photo = name
    named = _named(photo, name, definition)
    if others := [wording.noun_name([g]) for g in glosses[1:]][:_SYNONYMS]:
      named.insert(1, f"{photo}, also called {' or '.join(others)}")
    prompts.append(named)
  return prompts


def _named(prompt: str, name: str, definition: str) -> list[str]:
  meaning = _meaning(definition)
  return [prompt, f"{name}: {meaning}"] if meaning else [prompt]


def _meaning(definition: str) -> str:
  return wording.short(definition, _DEFINITION_WORDS)


def label_banks(
  encoder: TextEncoder,
  vocabulary: Vocabulary,
  mesh: Mesh,
  *,
  max_length: int = 77,
  batch_size: int = 256,
) -> dict[str, np.ndarray]:
  """Unit embeddings of all labels.

  Embeddings of short texts share most of their direction: nouns of a list
  easily have cosines of 0.95 with one another. The shared direction does not
  tell them apart, so it is subtracted from roles and nouns, and kept for later
  words. Verbs stay as the teacher's zero-shot logits need them.

  Returns:
    verb_text float32 [V, X], role_text [roles, X], noun_text [C, X], and the
    subtracted directions role_center [X], noun_center [X].
  """
  prompts = {
    "verb_text": verb_prompts(vocabulary),
    "role_text": role_prompts(vocabulary),
    "noun_text": noun_prompts(vocabulary),
  }
  banks = {
    name: text_bank(encoder, texts, mesh, max_length, batch_size)
    for name, texts in prompts.items()
  }
  for name in ("role", "noun"):
    bank = banks[f"{name}_text"]
    banks[f"{name}_center"] = bank.mean(axis=0)
    banks[f"{name}_text"] = center(bank, banks[f"{name}_center"])
  return banks


def center(bank: np.ndarray, shared: np.ndarray) -> np.ndarray:
  """Subtracts a shared direction from unit rows and makes them unit again.

  A row that equals the shared direction (a list of one) stays.
  """
  rest = bank - shared
  norms = np.linalg.norm(rest, axis=1, keepdims=True)
  alike = norms < 1e-6
  return np.where(alike, bank, rest / np.where(alike, 1, norms)).astype(
    np.float32
  )


def text_bank(
  encoder: TextEncoder,
  prompts: Sequence[Sequence[str]],
  mesh: Mesh,
  max_length: int = 77,
  batch_size: int = 256,
) -> np.ndarray:
  """Ensembles the prompts of every class: float32 [classes, X], unit rows.

  Raises:
    InputError: an embedding is zero or not finite.
  """
  texts = [text for group in prompts for text in group]
  classes = np.repeat(np.arange(len(prompts)), [len(g) for g in prompts])
  rows = embed_texts(encoder, texts, mesh, max_length, batch_size)
  mean = np.zeros((len(prompts), rows.shape[1]), np.float64)
  name = getattr(encoder, "name", "the text encoder")
  np.add.at(mean, classes, _unit(rows, texts, name))
  names = [group[0] for group in prompts]
  return _unit(mean, names, name).astype(np.float32)


def embed_texts(
  encoder: TextEncoder,
  texts: Sequence[str],
  mesh: Mesh,
  max_length: int = 77,
  batch_size: int = 256,
) -> np.ndarray:
  """Text embeddings of the encoder, unchanged: float32 [n, X].

  Texts of similar length share a batch that is cut to their length: a text
  tower's cost grows with padding, and prompts are short.
  """
  ids, mask = encoder.tokenize(list(texts), max_length)
  order = np.argsort(mask.sum(axis=1), kind="stable")
  shards = mesh.shape[sharding.DATA]
  batch_size = min(batch_size, len(texts))
  batch_size += -batch_size % shards
  params = jax.device_put(encoder.params, sharding.replicated(mesh))
  embed = jax.jit(
    lambda params, batch: encoder.text_embedding(
      params, batch["ids"], batch["mask"]
    ).astype(jnp.float32)
  )
  rows = []
  for start in range(0, len(texts), batch_size):
    chosen = order[start : start + batch_size]
    filled = np.resize(chosen, batch_size)  # repeats to fill the last batch
    longest = int(mask[filled].sum(axis=1).max())
    length = min(ids.shape[1], longest + -longest % _LENGTH_STEP)
    batch = {"ids": ids[filled, :length], "mask": mask[filled, :length]}
    there = embed(params, sharding.put_batch(mesh, batch))
    rows.append(np.asarray(there)[: len(chosen)])
  embeddings = np.empty((len(texts), rows[0].shape[1]), np.float32)
  embeddings[order] = np.concatenate(rows)
  return embeddings


def _unit(rows: np.ndarray, names: Sequence[str], encoder: str) -> np.ndarray:
  norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
  bad = np.flatnonzero(~(norms[:, 0] > 0) | ~np.isfinite(norms[:, 0]))
  if bad.size:
    raise InputError(
      f"{encoder}: the text encoder gives {bad.size} texts no direction (NaN, "
      f"infinite or zero), the first is {names[bad[0]]!r}",
      "check the text encoder's weights and tokenizer",
    )
  return rows / norms
