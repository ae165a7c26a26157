"""Candidate trees: their shape, and scores against one answer at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.teachers import blip2
from mipd_jax.teachers.blip2.decoders import candidates, language
from tests.fixtures import blip2_fixture as fixture
from tests.fixtures.blip2_fixture import OPT, T5, assert_close

END = 3
# Shared prefixes, one that is another's beginning, twins, one of one token.
ROWS = [
  [5, 6, END],
  [5, 7, END],
  [5, 6, 8, 9, END],
  [9, END],
  [5, 6, END],
  [END],
]


def test_tree_of_prefixes():
  tree = blip2.CandidateTree.build(ROWS)
  # Nodes: (), 5, 5 6, 5 7, 5 6 8, 5 6 8 9, 9 in the order they are met.
  assert tree.tokens.tolist() == [candidates.ROOT, 5, 6, 7, 8, 9, 9]
  assert tree.depth.tolist() == [0, 1, 2, 2, 3, 4, 1]
  assert tree.num_nodes == 7
  assert tree.lengths.tolist() == [3, 3, 5, 2, 3, 1]
  for node in range(7):
    line = tree.ancestors[node][tree.seen[node]]
    assert line[-1] == node
    assert tree.depth[line].tolist() == list(range(tree.depth[node] + 1))
    assert (line[:-1] < node).all()
  for row, edges, real in zip(ROWS, tree.edges, tree.real, strict=True):
    assert tree.edge_token[edges[real]].tolist() == row
    starts = tree.tokens[tree.edge_node[edges[real]]].tolist()
    assert starts == [candidates.ROOT, *row[:-1]]
  # An edge that several share is scored once.
  assert len(tree.edge_token) == 11


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    ([], "no candidates"),
    ([[1], []], r"candidates \[1\] have no tokens"),
    ([[1, -100]], r"candidates \[0\] have no tokens or negative ids"),
  ],
)
def test_bad_candidates(rows, message):
  with pytest.raises(InputError, match=message):
    blip2.CandidateTree.build(rows)


@pytest.mark.parametrize("case", [T5, OPT])
def test_tree_scores_are_those_of_each_answer(case):
  model = fixture.model(case)
  pixels, ids, mask, _ = fixture.inputs(case)
  image = model.encode_image(pixels)["language_tokens"]
  padded = 1  # this prompt has filler
  assert not mask[padded].all()
  tree = blip2.CandidateTree.build(ROWS)
  ours = jax.jit(model.candidate_scores)(
    model.params, image, ids[padded], mask[padded], tree
  )
  assert (ours.shape, ours.dtype) == ((3, len(ROWS)), jnp.float32)
  ids, mask = (np.stack([array[padded]] * 3) for array in (ids, mask))
  longest = max(map(len, ROWS))
  for column, row in enumerate(ROWS):
    filled = row + [language.IGNORED] * (longest - len(row))
    one = model.score(pixels, ids, mask, np.stack([filled] * 3))
    assert_close(ours[:, column], one, 1e-5)


def test_scores_do_not_depend_on_the_other_candidates():
  model = fixture.model(OPT)
  pixels, ids, mask, _ = fixture.inputs(OPT)
  image = model.encode_image(pixels)["language_tokens"]
  score = jax.jit(model.candidate_scores)
  question = (model.params, image, ids[0], mask[0])
  tree = blip2.CandidateTree.build(ROWS)
  all_ = score(*question, tree)
  # The tree as a constant in the program.
  within = jax.jit(lambda *arrays: model.candidate_scores(*arrays, tree))
  np.testing.assert_allclose(within(*question), all_, rtol=1e-5)
  some = score(*question, blip2.CandidateTree.build(ROWS[2:4]))
  np.testing.assert_allclose(some, all_[:, 2:4], rtol=1e-5)
  # One token each: no node but the root.
  single = score(*question, blip2.CandidateTree.build([[4], [END], [7]]))
  np.testing.assert_allclose(single[:, 1], all_[:, 5], rtol=1e-5)


def test_more_nodes_than_a_chunk():
  rng = np.random.default_rng(0)
  count = 2 * candidates._CHUNK + 5
  rows = [[i // 9, i % 9, 30 + i % 7, 1] for i in range(count)]
  tree = blip2.CandidateTree.build(rows)
  assert tree.num_nodes > count
  hidden = rng.normal(size=(2, tree.num_nodes, 8)).astype(np.float32)
  kernel = rng.normal(size=(8, 40)).astype(np.float32)
  ours = jax.jit(candidates.score)(tree, hidden, kernel)
  log_p = jax.nn.log_softmax(hidden @ kernel)
  theirs = [
    sum(
      log_p[:, tree.edge_node[edge], tree.edge_token[edge]]
      for edge in tree.edges[row]
    )
    for row in range(count)
  ]
  assert_close(ours, np.stack(theirs, axis=1), 1e-5)


def test_normalised_scores():
  scores = jnp.array([[-6.0, -4.0], [-3.0, -1.0]])
  lengths = np.array([3, 1])
  same = blip2.normalise_scores(scores, lengths, "sum")
  np.testing.assert_array_equal(same, scores)
  mean = blip2.normalise_scores(scores, lengths, "mean")
  np.testing.assert_allclose(mean, [[-2, -4], [-1, -1]])
  with pytest.raises(InputError, match="'max'"):
    blip2.normalise_scores(scores, lengths, "max")


def test_bad_questions():
  model = fixture.model(OPT)
  _, ids, mask, _ = fixture.inputs(OPT)
  image = jnp.zeros((3, 4, 24))

  def ask(rows, ids, mask):
    tree = blip2.CandidateTree.build(rows)
    return jax.eval_shape(
      lambda params: model.candidate_scores(params, image, ids, mask, tree),
      model.params,
    )

  assert ask(ROWS, ids[0], mask[0]).shape == (3, len(ROWS))
  assert ask(ROWS, ids[[0] * 3], mask[[0] * 3]).shape == (3, len(ROWS))
  with pytest.raises(InputError, match=r"\[3, length\]"):
    ask(ROWS, ids[:1], mask[:1])
  with pytest.raises(InputError, match=r"\[length\]"):
    ask(ROWS, ids[0, 0], mask[0, 0])
  with pytest.raises(InputError, match=r"candidates' ids .* 40"):
    ask([[40, 1]], ids[0], mask[0])
  with pytest.raises(InputError, match="OPT has 40"):
    ask([[4] * 40], ids[0], mask[0])
