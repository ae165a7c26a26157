"""Candidate answers as a tree of prefixes, scored in one pass per image.

Answers share their first tokens. The decoder runs once over the tree's nodes,
each a prefix, instead of once over every answer's tokens; image and question
are read once for any number of candidates.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.io.errors import InputError

ROOT = -1  # token of the root; each language model has its own start
# Nodes whose logits over all words are in memory at one time.
_CHUNK = 64
_LEAST = 64  # length of arrays that are filled up


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class CandidateTree:
  """Prefixes of the candidates: node 0 is the empty one, parents come first.

  Letters: M nodes, L greatest depth + 1, E edges (node, next token), C
  candidates, T tokens of the longest. A pytree: it may be an argument of a
  compiled function as well as a constant in one.

  Attributes:
    tokens: int32 [M], the last token of each prefix; ROOT for the first.
    depth: int32 [M], tokens of the prefix.
    ancestors: int32 [M, L], the prefix of each length up to the node's own.
    seen: bool [M, L], False where `ancestors` is filler.
    edge_node, edge_token: int32 [E], a node and a token that follows it.
    edges: int32 [C, T], the edges of each candidate.
    real: bool [C, T], False where `edges` is filler.
  """

  tokens: np.ndarray
  depth: np.ndarray
  ancestors: np.ndarray
  seen: np.ndarray
  edge_node: np.ndarray
  edge_token: np.ndarray
  edges: np.ndarray
  real: np.ndarray

  @classmethod
  def build(cls, candidates: Sequence[Sequence[int]]) -> "CandidateTree":
    """Makes the tree on the host.

    Args:
      candidates: token ids of each answer with its end token. Equal candidates
        get the same score.

    Raises:
      InputError: there is no candidate, one is empty, or an id is negative.
    """
    rows = [[int(token) for token in row] for row in candidates]
    bad = [i for i, row in enumerate(rows) if not row or min(row) < 0]
    if not rows or bad:
      raise InputError(
        f"candidates {bad} have no tokens or negative ids"
        if rows
        else "there are no candidates to score",
        "give one non-empty list of token ids per candidate",
      )
    nodes: dict[tuple[int, ...], int] = {(): 0}
    edges: dict[tuple[int, int], int] = {}
    paths = []
    for row in rows:
      path = []
      for end, token in enumerate(row):
        node = nodes.setdefault(tuple(row[:end]), len(nodes))
        path.append(edges.setdefault((node, token), len(edges)))
      paths.append(path)
    return cls(
      **_node_arrays(nodes),
      edge_node=np.array([node for node, _ in edges], np.int32),
      edge_token=np.array([token for _, token in edges], np.int32),
      **_padded(paths),
    )

  def filled_up(self) -> "CandidateTree":
    """With arrays of powers of two, so that few programs serve many trees.

    Candidates that are added have no tokens. Filler nodes are the root again,
    filler edges the first one.
    """
    depth = _power_of_two(self.ancestors.shape[1], 4)
    seen = _wider(_longer(self.seen, False), depth)
    seen[len(self.seen) :, 0] = True
    length = _power_of_two(self.edges.shape[1], 4)
    return CandidateTree(
      tokens=_longer(self.tokens, int(self.tokens[0])),
      depth=_longer(self.depth, 0),
      ancestors=_wider(_longer(self.ancestors, 0), depth),
      seen=seen,
      edge_node=_longer(self.edge_node, 0),
      edge_token=_longer(self.edge_token, int(self.edge_token[0])),
      edges=_wider(_longer(self.edges, 0), length),
      real=_wider(_longer(self.real, False), length),
    )

  @property
  def num_nodes(self) -> int:
    """M."""
    return len(self.tokens)

  @property
  def lengths(self) -> np.ndarray:
    """Tokens of each candidate, int [C]."""
    return self.real.sum(axis=1)


def score(
  tree: CandidateTree, hidden: jax.Array, kernel: jax.Array
) -> jax.Array:
  """Log-likelihood of every candidate.

  Logits over all words are in memory for a few nodes at a time; only their
  log-sum-exp and the logits of the tree's own edges are kept.

  Args:
    tree: the candidates.
    hidden: [B, M, D], the decoder's output at each node.
    kernel: [D, V], the output layer.

  Returns:
    float32 [B, C].
  """
  hidden = hidden.astype(kernel.dtype)
  edge_node = jnp.asarray(tree.edge_node)
  chosen = jnp.einsum(
    "bed,de->be",
    hidden[:, edge_node],
    kernel[:, jnp.asarray(tree.edge_token)],
    preferred_element_type=jnp.float32,
  )
  log_p = chosen - _normaliser(hidden, kernel)[:, edge_node]
  terms = jnp.where(jnp.asarray(tree.real), log_p[:, tree.edges], 0.0)
  return terms.sum(axis=-1)


def normalise_scores(
  scores: jax.Array, lengths: jax.Array, mode: str
) -> jax.Array:
  """Log-likelihoods made comparable between answers of different length.

  Args:
    scores: [..., C], sums over an answer's tokens.
    lengths: [C], tokens of each answer with its end token.
    mode: "sum" keeps them, which favours short answers; "mean" divides by the
      length: the average over an answer's tokens.

  Raises:
    InputError: another mode.
  """
  if mode == "sum":
    return scores
  if mode == "mean":
    return scores / jnp.asarray(lengths, scores.dtype)
  raise InputError(
    f"scores cannot be normalised by {mode!r}", 'use "sum" or "mean"'
  )


def _normaliser(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
  """[B, M, D] -> float32 [B, M]: log of the sum over words of exp."""
  batch, nodes, width = hidden.shape
  size = min(_CHUNK, nodes)
  chunks = -(-nodes // size)
  room = ((0, 0), (0, chunks * size - nodes), (0, 0))
  # Chunks of nodes, not of images: those may lie on different devices.
  parts = jnp.pad(hidden, room).reshape(batch, chunks, size, width)

  def one(part):
    logits = jnp.einsum(
      "bkd,dv->bkv", part, kernel, preferred_element_type=jnp.float32
    )
    return jax.nn.logsumexp(logits, axis=-1)

  sums = jax.lax.map(one, parts.swapaxes(0, 1)).swapaxes(0, 1)
  return sums.reshape(batch, -1)[:, :nodes]


def _node_arrays(nodes: dict[tuple[int, ...], int]) -> dict[str, np.ndarray]:
  depth = np.array([len(prefix) for prefix in nodes], np.int32)
  ancestors = np.zeros((len(nodes), depth.max() + 1), np.int32)
  for prefix, node in nodes.items():
    for end in range(len(prefix) + 1):
      ancestors[node, end] = nodes[prefix[:end]]
  last = [prefix[-1] if prefix else ROOT for prefix in nodes]
  return {
    "tokens": np.array(last, np.int32),
    "depth": depth,
    "ancestors": ancestors,
    "seen": np.arange(ancestors.shape[1]) <= depth[:, None],
  }


def _padded(paths: list[list[int]]) -> dict[str, np.ndarray]:
  longest = max(len(path) for path in paths)
  edges = np.zeros((len(paths), longest), np.int32)
  real = np.zeros(edges.shape, bool)
  for row, path in enumerate(paths):
    edges[row, : len(path)] = path
    real[row, : len(path)] = True
  return {"edges": edges, "real": real}


def _power_of_two(size: int, least: int = _LEAST) -> int:
  return max(least, 1 << (size - 1).bit_length())


def _longer(rows: np.ndarray, filler: int | bool) -> np.ndarray:
  more = _power_of_two(len(rows)) - len(rows)
  room = [(0, more)] + [(0, 0)] * (rows.ndim - 1)
  return np.pad(rows, room, constant_values=filler)


def _wider(rows: np.ndarray, width: int) -> np.ndarray:
  return np.pad(rows, [(0, 0), (0, width - rows.shape[1])])
