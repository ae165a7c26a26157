"""The protocols of frozen encoders, to plug in others.

`Encoder` is an image and text dual encoder: it gives the student its image
tokens, embeds labels and rationales, and may be a teacher. `ImageTeacher` has
image tokens and logits over the verbs. `families` maps checkpoints to these.

Letters: B images, H = W = `image_size` pixels, N and M tokens, S and T their
widths, n texts, L text tokens, X width of the joint space of images and
texts, V verbs. Methods that take `params` are pure and can be jitted; `params`
are always an object's own, or these placed on a mesh.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from input_pipeline.dataset import Split
from input_pipeline.ov_swig.vocabulary import Vocabulary

Params = Any  # nested dict of arrays
Seen = Mapping[str, jax.Array]  # "tokens" [B, M, T], and inputs of a scorer
Scorer = Callable[[Params, Seen], jax.Array]
Question = tuple[Any, Any]  # ids int32 and mask bool, [n, P]


class TextEncoder(Protocol):
  """The part of a text tower that text banks need."""

  @property
  def params(self) -> Params:
    """Nested dict of arrays."""
    ...

  def tokenize(
    self, texts: Sequence[str], max_length: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Texts -> ids int32 [n, L], mask bool [n, L], True where a token is.

    L is `max_length`, or the tower's maximum if that is less.
    """
    ...

  def text_embedding(
    self, params: Params, ids: jax.Array, mask: jax.Array
  ) -> jax.Array:
    """ids, mask [n, L] -> [n, X]: projected, not normalised.

    Filler, and how much of it there is, makes no difference.
    """
    ...


class Encoder(TextEncoder, Protocol):
  """An image and text dual encoder."""

  @property
  def name(self) -> str:
    """The checkpoint's name; its last part is in a cache's plan."""
    ...

  @property
  def revision(self) -> str:
    """sha256 of weights, settings and tokenizer; part of a cache's plan."""
    ...

  @property
  def image_size(self) -> int:
    """Side of the square input, pixels."""
    ...

  @property
  def logit_scale(self) -> float:
    """Factor on the cosines of images and texts."""
    ...

  @property
  def image_params(self) -> Params:
    """The part of `params` that `image_tokens` reads; exports carry it."""
    ...

  def image_tokens(self, params: Params, pixels: jax.Array) -> jax.Array:
    """uint8 [B, H, W, 3] -> [B, N, S].

    Token 0 stands for the whole image; a square grid follows, row by row.
    """
    ...

  def image_features(
    self, params: Params, pixels: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Tokens and the image's embedding in one pass: ([B, N, S], [B, X]).

    The embedding is projected, not normalised.
    """
    ...

  def text_tokens(
    self, params: Params, ids: jax.Array, mask: jax.Array
  ) -> jax.Array:
    """ids, mask [n, L] -> [n, L, X]: each token, projected.

    Tokens where `mask` is False are filler. A text's last token stands for the
    whole text: its row is what `text_embedding` gives.
    """
    ...


class ImageTeacher(Protocol):
  """A model whose image tokens and verb logits are distilled.

  A teacher encodes a batch of letterboxed pixels once (`see`); the cache keeps
  its tokens and its logits over the verbs (`scorer`).
  """

  @property
  def name(self) -> str:
    """The checkpoint's name; its last part is in a cache's plan."""
    ...

  @property
  def revision(self) -> str:
    """sha256 of weights, settings and tokenizer; part of a cache's plan."""
    ...

  @property
  def image_size(self) -> int:
    """Side of the square input, pixels."""
    ...

  @property
  def params(self) -> Params:
    """Nested dict of arrays."""
    ...

  @property
  def options(self) -> Mapping[str, str]:
    """What else its features depend on, name -> value; in the plan too."""
    ...

  def shardings(self, mesh: Mesh) -> Any:
    """Shardings of the parameters: a tree, or one for all."""
    ...

  def see(self, params: Params, pixels: jax.Array) -> Seen:
    """uint8 [B, H, W, 3] -> {"tokens" [B, M, T], ...}.

    Token 0 stands for the whole image; a square grid follows, row by row. With
    layers that stay open also "kept", the tokens that these read, if others.
    """
    ...

  def verb_bank(
    self, vocabulary: Vocabulary, mesh: Mesh
  ) -> dict[str, np.ndarray]:
    """Arrays of the verbs for `scorer`; kept in the cache's labels."""
    ...

  def open_weights(self) -> dict[str, np.ndarray]:
    """Weights of layers that stay open to prompts; kept with the labels."""
    ...

  def scorer(
    self, verbs: Sequence[str], bank: Mapping[str, np.ndarray]
  ) -> Scorer:
    """(params, seen) -> logits of the verbs, float32 [B, V]; pure."""
    ...


class InstanceTeacher(ImageTeacher, Protocol):
  """A teacher that also says what a part of an image shows.

  Letters: I instances, P tokens of a question, C candidates.
  """

  def see_part(
    self, params: Params, tokens: jax.Array, coverage: jax.Array
  ) -> Seen:
    """Some of an image's tokens, as `see` gives a whole image.

    Args:
      params: its own.
      tokens: [I, M, T], from `see`, of the image of each instance.
      coverage: float [I, M], how much of each token is read.
    """
    ...

  def questions(self, texts: Sequence[str]) -> Question:
    """Questions, tokenized, padded to one length."""
    ...

  def candidates(self, names: Sequence[str]) -> Any:
    """Possible answers: a pytree, an argument of compiled functions.

    Filled up to a few sizes, so that few programs serve all lists.
    """
    ...

  def answer_scores(
    self, params: Params, seen: Seen, question: Question, candidates: Any
  ) -> jax.Array:
    """Log-likelihoods of the candidates up to a constant, float32 [I, C].

    Args:
      params: its own.
      seen: of `see` or `see_part`.
      question: a row for each instance.
      candidates: of `candidates`.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Kind:
  """Instances about which the same is asked, such as all of one role.

  Attributes:
    question: as the teacher is asked.
    classes: int [c], the classes among which it chooses.
    names: the c candidate answers.
  """

  question: str
  classes: np.ndarray
  names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Instances:
  """The instances of a split's images; K is the most of an image.

  Attributes:
    boxes: corners float32 [n, K, 4] as shares of the canvas.
    kind: int32 [n, K], a place in the kinds; -1 where there is no instance.
  """

  boxes: np.ndarray
  kind: np.ndarray

  def rows(self, indices: np.ndarray) -> "Instances":
    """Those of some images."""
    return Instances(self.boxes[indices], self.kind[indices])


class InstanceSource(Protocol):
  """A task's instances: what is asked about which boxes."""

  @property
  def kinds(self) -> Sequence[Kind]:
    """All kinds, whatever the split."""
    ...

  @property
  def slots(self) -> int:
    """K."""
    ...

  def of(self, split: Split) -> Instances:
    """The instances of a split, in the order of its images."""
    ...

  def sentences(
    self, split: Split, texts: Sequence[Sequence[str]]
  ) -> list[list[tuple[str, str]]]:
    """What the gaze texts say about each instance: positive, negative.

    Args:
      split: of n images.
      texts: the four rationales of each.

    Returns:
      n times K pairs; "" where a text says nothing, or there is no instance.
    """
    ...
