"""The arithmetic of losses: values and weights per example, masks exact.

A `Term` is a value for each example of the batch and a weight that says
whether the example counts; its mean is sum(value * weight) / sum(weight)
over the global batch. A padded role or a padded example changes neither.
All in float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mipd_jax.losses import box_ops


class Term(NamedTuple):
  """Per-example values [B] and weights [B]."""

  value: Float[Array, "b"]
  weight: Float[Array, "b"]

  def mean(self) -> Float[Array, ""]:
    """Weighted mean; zero where nothing counts."""
    value = jnp.where(self.weight > 0, self.value, 0)
    total = jnp.sum(value * self.weight)
    return total / jnp.maximum(jnp.sum(self.weight), 1.0)


def of_every(value: Float[Array, "b"]) -> Term:
  """A term in which every example counts alike."""
  return Term(value, jnp.ones_like(value))


def smoothed_cross_entropy(
  logits: Float[Array, "*b c"],
  labels: Int[Array, "*b a"],
  smoothing: float,
  log_prior: Float[Array, "c"] | None = None,
  allowed: Bool[Array, "c"] | None = None,
) -> Float[Array, "*b a"]:
  """(1 - e) NLL + e mean_c(-log p), for several labels of one row of logits.

  Reference `LabelSmoothing`. Never materialises log-probabilities: one
  log-sum-exp and one mean serve all labels.

  Args:
    logits: class scores, cast to float32.
    labels: class of each annotator.
    smoothing: e.
    log_prior: added to the logits (logit adjustment, Menon et al. 2021).
    allowed: classes outside take no part, not even as negatives.
  """
  logits = logits.astype(jnp.float32)
  if log_prior is not None:
    logits = logits + log_prior
  if allowed is None:
    log_sum = jax.nn.logsumexp(logits, axis=-1)
    mean = jnp.mean(logits, axis=-1)
  else:
    log_sum = jax.nn.logsumexp(logits, axis=-1, where=allowed)
    mean = jnp.mean(logits, axis=-1, where=allowed)
  chosen = jnp.take_along_axis(logits, labels, axis=-1)
  nll = log_sum[..., None] - chosen
  return (1 - smoothing) * nll + smoothing * (log_sum - mean)[..., None]


def masked_mean(
  value: Float[Array, "b n"], mask: Bool[Array, "b n"]
) -> Float[Array, "b"]:
  """Mean over the roles or pairs that an example has; 0 without any."""
  count = jnp.maximum(jnp.sum(mask, axis=-1), 1)
  return jnp.sum(jnp.where(mask, value, 0), axis=-1) / count


def cosine(
  a: Float[Array, "*b d"], b: Float[Array, "*b d"], epsilon: float = 1e-8
) -> Float[Array, "*b"]:
  """Cosine similarity, each norm at least `epsilon` (as PyTorch's)."""
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  norms = _norm(a, epsilon) * _norm(b, epsilon)
  return jnp.sum(a * b, axis=-1) / norms


def cosine_matrix(
  a: Float[Array, "n d"], b: Float[Array, "m d"], epsilon: float = 1e-8
) -> Float[Array, "n m"]:
  """`cosine` of every row with every row."""
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  a = a / _norm(a, epsilon)[:, None]
  b = b / _norm(b, epsilon)[:, None]
  return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


def _norm(x: Float[Array, "*b d"], epsilon: float) -> Float[Array, "*b"]:
  return jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1), epsilon**2))


def contrast_hinge(
  target: Float[Array, "*b d"], negative: Float[Array, "*b d"]
) -> Float[Array, "*b"]:
  """relu(cos(target, negative)): pushes a target away from its negative."""
  return jax.nn.relu(cosine(target, negative))


def other_verbs(
  verb: Int[Array, "b"], example_mask: Bool[Array, "b"]
) -> Bool[Array, "b b"]:
  """Whose positive rationales compete with each image's in `info_nce`.

  Rationales of other images of the same verb say nearly the same and are left
  out, as are those of filler examples.
  """
  return (verb[:, None] != verb[None, :]) & example_mask[None, :]


def info_nce(
  target: Float[Array, "b d"],
  positive: Float[Array, "b d"],
  negative: Float[Array, "b d"],
  other: Bool[Array, "b b"],
  temperature: float,
  with_negative: bool | Bool[Array, "b"] = True,
) -> Float[Array, "b"]:
  """InfoNCE: the image's own positive against others' and its own negative.

  Args:
    target, positive, negative: one row per image.
    other: whose positives compete in each row.
    temperature: divides the similarities.
    with_negative: whether the row's own negative competes too.
  """
  count = target.shape[0]
  own = jnp.eye(count, dtype=bool)
  similar = cosine_matrix(target, positive)
  against = cosine(target, negative)[:, None]
  logits = jnp.concatenate([similar, against], axis=-1) / temperature
  last = jnp.broadcast_to(with_negative, count)[:, None]
  counts = jnp.concatenate([own | other, last], axis=-1)
  log_sum = jax.nn.logsumexp(logits, axis=-1, where=counts)
  return log_sum - cosine(target, positive) / temperature


def verb_kl(
  teacher: Float[Array, "b v"],
  student: Float[Array, "b v"],
  trained: Bool[Array, "v"],
  temperature: float,
  names: str,
  listed: float = 1.0,
  gain: float = 1.0,
  log_prior: Float[Array, "v"] | None = None,
) -> Float[Array, "b"]:
  """KL(teacher || student) over names of verbs, at a temperature.

  Scaled by temperature squared (Hinton et al. 2015), so that the gradient
  keeps its size.

  Args:
    teacher, student: logits.
    trained: which verbs have training images.
    temperature: divides both logits.
    names: "trained": among trained names only. "decoupled": among trained
      and among untrained names apart, never across the two. "untrained": the
      latter alone; trained names are left to the labels. "all": among all
      names at once. All but the first use the names of unseen verbs.
    listed: share of the untrained names that take part.
    gain: multiplies the teacher's logits. A language model's log-likelihoods
      lie closer together than a CLIP's scaled similarities, and the student
      learns the spread of the untrained names from them.
    log_prior: added to both; names that are rare in training then weigh little
      on the many images that are not theirs.
  """
  teacher = gain * teacher.astype(jnp.float32)
  known = trained | listed_names(trained, listed)
  groups = name_groups(trained, known, names)
  return kl_among(teacher, student, groups, temperature, log_prior)


def name_groups(
  trained: Bool[Array, "*b v"], known: Bool[Array, "*b v"], names: str
) -> tuple[Bool[Array, "*b v"], ...]:
  """Groups of names that compete; `names` as in `verb_kl`."""
  return {
    "all": (known,),
    "trained": (trained,),
    "untrained": (known & ~trained,),
    "decoupled": (trained, known & ~trained),
  }[names]


def kl_among(
  teacher: Float[Array, "*b v"],
  student: Float[Array, "*b v"],
  groups: tuple[Bool[Array, "*b v"], ...],
  temperature: float,
  log_prior: Float[Array, "v"] | None = None,
) -> Float[Array, "*b"]:
  """KL(teacher || student) within each group of names, summed over groups.

  An empty group gives zero.
  """

  def among(chosen):
    def log_probability(scores):
      # A large finite number: -inf would put NaN into the gradient.
      scores = scores.astype(jnp.float32) / temperature
      if log_prior is not None:
        scores = scores + log_prior
      scores = jnp.where(chosen, scores, -1e9)
      return jax.nn.log_softmax(scores, axis=-1)

    t, s = log_probability(teacher), log_probability(student)
    gap = jnp.where(chosen, jnp.exp(t) * (t - s), 0)
    return jnp.where(jnp.any(chosen, axis=-1), jnp.sum(gap, axis=-1), 0)

  return temperature**2 * sum(among(group) for group in groups)


def answers_kl(
  log_shares: Float[Array, "*b j"],
  classes: Int[Array, "*b j"],
  log_rest: Float[Array, "*b"],
  student: Float[Array, "*b c"],
  candidates: Bool[Array, "*b c"],
  temperature: float,
) -> Float[Array, "*b"]:
  """KL(teacher || student) among candidates, from the teacher's best answers.

  What is left of the teacher's mass counts as one more class, as if it were
  spread evenly over the candidates that are not among the best. Scaled by
  temperature squared, as in `verb_kl`.

  Args:
    log_shares, classes: the teacher's best, -1 where there are fewer.
    log_rest: logarithm of the mass of all other candidates.
    student: logits.
    candidates: the classes that compete; the best always do.
    temperature: divides both logits.
  """
  there = classes >= 0
  count = student.shape[-1]
  # Filler goes into a column of its own.
  chosen = jnp.zeros((*student.shape[:-1], count + 1), bool)
  column = jnp.where(there, classes, count)
  chosen = jnp.put_along_axis(chosen, column, True, axis=-1, inplace=False)
  chosen = chosen[..., :count]
  others = candidates & ~chosen

  def log_normal(best, rest):
    logits = jnp.concatenate([best, rest[..., None]], axis=-1)
    return jax.nn.log_softmax(logits, axis=-1)

  # A large finite number: -inf would put NaN into the gradient.
  never = -1e9
  number = jnp.sum(others, axis=-1).astype(jnp.float32)
  log_number = jnp.log(jnp.maximum(number, 1))
  rest = log_number + (log_rest - log_number) / temperature
  teacher = log_normal(
    jnp.where(there, log_shares / temperature, never),
    jnp.where(number > 0, rest, never),
  )
  scores = student.astype(jnp.float32) / temperature
  of_best = jnp.take_along_axis(scores, jnp.maximum(classes, 0), axis=-1)
  of_rest = jax.nn.logsumexp(jnp.where(others, scores, never), axis=-1)
  guess = log_normal(jnp.where(there, of_best, never), of_rest)
  share = jnp.exp(teacher)
  gap = jnp.where(share > 0, share * (teacher - guess), 0)
  return temperature**2 * jnp.sum(gap, axis=-1)


def listed_names(trained: Bool[Array, "v"], share: float) -> Bool[Array, "v"]:
  """A share of the untrained names, evenly spread over the list.

  A pure function of its arguments, so that scores can tell the listed names
  from the others.
  """
  rank = jnp.cumsum(~trained)  # of an untrained name: 1, 2, ...
  return ~trained & (jnp.floor(rank * share) > jnp.floor((rank - 1) * share))


def absolute(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """|x| with gradient 0 at 0, as PyTorch's; jnp.abs has 1 there."""
  return x * jnp.sign(x)


def box_regression(
  predicted: Float[Array, "b r 4"],
  true: Float[Array, "b r 4"],
  box_mask: Bool[Array, "b r"],
) -> tuple[Float[Array, "b"], Float[Array, "b"], Bool[Array, "b"]]:
  """L1 of cx cy w h and 1 - GIoU, each a mean over the example's boxes.

  Returns:
    L1 [B], GIoU loss [B], and which examples have a box at all.
  """
  count = jnp.maximum(jnp.sum(box_mask, axis=-1), 1)
  distance = jnp.sum(absolute(predicted - true), axis=-1)
  # A dummy box where there is none keeps the gradient finite.
  safe = jnp.where(box_mask[..., None], true, 0.5)
  guess = jnp.where(box_mask[..., None], predicted, 0.5)
  giou = 1 - box_ops.giou(box_ops.to_corners(guess), box_ops.to_corners(safe))
  l1 = jnp.sum(jnp.where(box_mask, distance, 0), axis=-1) / count
  giou = jnp.sum(jnp.where(box_mask, giou, 0), axis=-1) / count
  return l1, giou, jnp.any(box_mask, axis=-1)


def binary_cross_entropy(
  logits: Float[Array, "*b"], truth: Bool[Array, "*b"]
) -> Float[Array, "*b"]:
  """Sigmoid cross entropy from logits."""
  logits = logits.astype(jnp.float32)
  return jnp.where(truth, jax.nn.softplus(-logits), jax.nn.softplus(logits))
