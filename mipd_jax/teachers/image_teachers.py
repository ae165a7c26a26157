"""The available teachers: any dual encoder, and BLIP-2.

See `interfaces.ImageTeacher` for their protocol, `families` to add one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.vocabulary import Vocabulary
from mipd_jax.devices import sharding
from mipd_jax.models.teaching.open_layers import TOWER, OpenLayers
from mipd_jax.rationales import wording
from mipd_jax.teachers import blip2, labels
from mipd_jax.teachers.blip2 import Blip2, open_layers, sharding_rules
from mipd_jax.teachers.blip2.decoders.candidates import CandidateTree
from mipd_jax.teachers.blip2.module import LOWER_TOKENS
from mipd_jax.teachers.checkpoints import hf_weights
from mipd_jax.teachers.encoding import zero_shot_logits
from mipd_jax.teachers.interfaces import (
  Encoder,
  Params,
  Question,
  Scorer,
  Seen,
)

# The verbs in a CLIP teacher's own text space; a BLIP-2's log-likelihoods of
# the verbs for a grey image, float32 [V].
TEACHER_VERB_TEXT = "teacher_verb_text"
TEACHER_VERB_PRIOR = "teacher_verb_prior"
VERB_SCORES = ("sum", "mean", "calibrated")
_GREY = 127
_CANDIDATES = 64  # lists are filled up to multiples


class ZeroShotTeacher:
  """A dual encoder as teacher; its logits are scaled cosines with the labels.

  Radford et al. 2021, figure 3.
  """

  options: Mapping[str, str] = {"verb_logits": "zero-shot"}

  def __init__(self, model: Encoder):
    self._encoder = model
    self.name, self.revision = model.name, model.revision
    self.image_size, self.params = model.image_size, model.params

  def shardings(self, mesh: Mesh) -> Any:
    return sharding.replicated(mesh)

  def see(self, params: Params, pixels: jax.Array) -> Seen:
    tokens, image = self._encoder.image_features(params, pixels)
    return {"tokens": tokens, "image": image}

  def verb_bank(
    self, vocabulary: Vocabulary, mesh: Mesh
  ) -> dict[str, np.ndarray]:
    prompts = labels.verb_prompts(vocabulary)
    return {TEACHER_VERB_TEXT: labels.text_bank(self._encoder, prompts, mesh)}

  def scorer(
    self, verbs: Sequence[str], bank: Mapping[str, np.ndarray]
  ) -> Scorer:
    text, scale = bank[TEACHER_VERB_TEXT], self._encoder.logit_scale

    def score(params: Params, seen: Seen) -> jax.Array:
      del params
      return zero_shot_logits(seen["image"], text, scale)

    return score

  def open_weights(self) -> dict[str, np.ndarray]:
    return {}

  def questions(self, texts: Sequence[str]) -> Question:
    """A dual encoder is not asked: it compares what it sees with names."""
    shape = (len(texts), 1)
    return np.zeros(shape, np.int32), np.ones(shape, bool)

  def candidates(self, names: Sequence[str]) -> np.ndarray:
    prompts = [[f"a photo of {wording.with_article(n)}"] for n in names]
    rows = labels.text_bank(self._encoder, prompts, sharding.make_mesh())
    return np.pad(rows, [(0, -len(rows) % _CANDIDATES), (0, 0)])

  def answer_scores(
    self,
    params: Params,
    seen: Seen,
    question: Question,
    candidates: np.ndarray,
  ) -> jax.Array:
    del params, question
    scale = self._encoder.logit_scale
    return zero_shot_logits(seen["image"], candidates, scale)


class Blip2Teacher:
  """A BLIP-2 as teacher; its logits are log-likelihoods of the verbs' names.

  The question is asked about each image and read once; the names are scored as
  answers to it (see `blip2/decoders/candidates.py`) by `verb_score`:

  - "sum": log p(name | image, question), so their softmax is the model's own
    belief, restricted to the list of verbs.
  - "mean": divided by the name's number of tokens.
  - "calibrated": the sum minus that of a grey image: names that the model
    prefers for any image lose that advantage (Zhao et al. 2021,
    "Calibrate before use").

  Layers that `open_name` names (of `open_layers.parse`) go into the cache, too,
  with the tokens that they read.
  """

  _open: OpenLayers | None = None
  _above = 0  # layers of the tower that stay open

  def __init__(
    self,
    model: Blip2,
    question: str,
    verb_score: str = "sum",
    open_name: str = "",
  ) -> None:
    """Raises InputError if `verb_score` is not in `VERB_SCORES`."""
    if verb_score not in VERB_SCORES:
      raise InputError(
        f"verb_score {verb_score!r} is not known", f"use one of {VERB_SCORES}"
      )
    self._model = model
    self._verb_score = verb_score
    self.name, self.revision = model.name, model.revision
    self.image_size, self.params = model.image_size, model.params
    self.options = {"question": question, "verb_logits": verb_score}
    if open_name:
      self._open = open_layers.opened(model, open_name)
      self.options["open_layers"] = self._open.to_text()
      self._above = self._open.layers * (self._open.kind == TOWER)
    ids, mask = model.tokenize([question])
    length = int(mask.sum())
    self._question = ids[0, :length], mask[0, :length]

  def shardings(self, mesh: Mesh) -> Any:
    return sharding_rules.shardings(self._model.config, self.params, mesh)

  def see(self, params: Params, pixels: jax.Array) -> Seen:
    features = self._model.image_features(params, pixels, self._above)
    seen = {
      "tokens": features["vision_tokens"],
      "language": features["language_tokens"],
    }
    if self._above:
      seen["kept"] = features[LOWER_TOKENS]
    return seen

  def verb_bank(
    self, vocabulary: Vocabulary, mesh: Mesh
  ) -> dict[str, np.ndarray]:
    if self._verb_score != "calibrated":
      return {}
    side, shards = self.image_size, mesh.shape[sharding.DATA]
    grey = np.full((shards, side, side, 3), _GREY, np.uint8)
    params = jax.device_put(self.params, self.shardings(mesh))
    batch = sharding.put_batch(mesh, {"pixels": grey})
    score = self.scorer(vocabulary.verbs, {})
    scores = jax.jit(lambda p, b: score(p, self.see(p, **b)))(params, batch)
    prior = np.asarray(scores)[0]
    if not hf_weights.all_finite(prior):
      verb = vocabulary.verbs[int(np.argmin(np.isfinite(prior)))]
      raise InputError(
        f"{self.name} gives the verb {verb!r} a NaN or infinite "
        "log-likelihood for a grey image",
        "check its weights and config.json, or use float32 or bfloat16",
      )
    return {TEACHER_VERB_PRIOR: prior}

  def open_weights(self) -> dict[str, np.ndarray]:
    """Of layers that stay open, by flat names; {} without any."""
    return open_layers.weights(self._model, self._open) if self._open else {}

  def scorer(
    self, verbs: Sequence[str], bank: Mapping[str, np.ndarray]
  ) -> Scorer:
    tree = self._model.tokenize_answers(verbs)
    mode = "mean" if self._verb_score == "mean" else "sum"
    prior = bank.get(TEACHER_VERB_PRIOR, np.float32(0))

    def score(params: Params, seen: Seen) -> jax.Array:
      scores = self._model.candidate_scores(
        params, seen["language"], *self._question, tree
      )
      return blip2.normalise_scores(scores, tree.lengths, mode) - prior

    return score

  def see_part(
    self, params: Params, tokens: jax.Array, coverage: jax.Array
  ) -> Seen:
    language = self._model.region_tokens(params, tokens, coverage)
    return {"tokens": tokens, "language": language}

  def questions(self, texts: Sequence[str]) -> Question:
    return self._model.tokenize(texts)

  def candidates(self, names: Sequence[str]) -> CandidateTree:
    return self._model.tokenize_answers(names).filled_up()

  def answer_scores(
    self,
    params: Params,
    seen: Seen,
    question: Question,
    candidates: CandidateTree,
  ) -> jax.Array:
    scores = self._model.candidate_scores(
      params, seen["language"], *question, candidates
    )
    mode = "mean" if self._verb_score == "mean" else "sum"
    lengths = jnp.maximum(candidates.real.sum(axis=1), 1)  # of filler 0
    return blip2.normalise_scores(scores, lengths, mode)


def load_blip2(
  folder_or_id: str,
  dtype: Any,
  *,
  question: str,
  verb_score: str,
  mesh: Mesh | None = None,
  open_name: str = "",
) -> Blip2Teacher:
  """Loads a BLIP-2 as teacher; arguments as in `families.load_teacher`."""
  model = blip2.load(folder_or_id, dtype, mesh=mesh)
  return Blip2Teacher(model, question, verb_score, open_name)
