"""The reference's parameters by their names there, and as our tree.

Three layouts differ: a linear `weight` is [out, in], the three input
projections of an attention are one stacked [3d, d], and an edge prompt is
[1, t]. Sizes follow from the shapes, by the letters of `_SHAPES`:

  d  hidden      f  feed-forward      s, t, x  student, teacher, text widths
  v, r, c  verbs, roles, nouns        m  side of the instance map
"""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline.io.errors import InputError

HEADS = 8  # of the decoder; the text attention of the teacher has one
_DECODER = "transformer.tr_dec.layers.0"
_PREFIX = "module."  # of a checkpoint saved from DistributedDataParallel

# The place of each parameter in our tree.
_ARRAYS = {
  "proj": "student/verb_proj",
  "proj_cls": "student/noun_proj",
  "role_token_embed.weight": "student/role_embedding",
  "verb_token_embed.weight": "student/verb_embedding",
  "boxprompter.base_prompt": "teacher_branch/instance_map",
  "proj_prompt.bias": "teacher_branch/project_bias",
}
_TRANSPOSED = {"proj_prompt.weight": "teacher_branch/project_kernel"}
_EDGES = {
  f"EdgePrompter.edge_prompt_{side}": f"teacher_branch/scene_{side}"
  for side in ("top", "bottom", "left", "right")
}
_LINEARS = {
  "linear_blip.0": "student/project",
  f"{_DECODER}.linear1": "student/decoder/linear1",
  f"{_DECODER}.linear2": "student/decoder/linear2",
  "noun_3_classifier.0": "student/noun_classifier/layer_0",
  "noun_3_classifier.3": "student/noun_classifier/layer_1",
  "bbox_predictor.0": "student/box/layer_0",
  "bbox_predictor.3": "student/box/layer_1",
  "bbox_predictor.6": "student/box/layer_2",
  "bbox_conf_predictor.0": "student/box_confidence/layer_0",
  "bbox_conf_predictor.3": "student/box_confidence/layer_1",
  "proj_verb_pos": "teacher_branch/text_glimpse_pos",
  "proj_verb_neg": "teacher_branch/text_glimpse_neg",
  "proj_class_pos": "teacher_branch/text_gaze_pos",
  "proj_class_neg": "teacher_branch/text_gaze_neg",
}
_NORMS = {
  "transformer.ln3": "student/norm_memory",
  f"{_DECODER}.norm1": "student/decoder/norm1",
  f"{_DECODER}.norm2": "student/decoder/norm2",
  f"{_DECODER}.norm3": "student/decoder/norm3",
  "transformer.ln4": "student/decoder/norm_out",
}
_ATTENTIONS = {  # our path, heads
  f"{_DECODER}.self_attn": ("student/decoder/self_attention", HEADS),
  f"{_DECODER}.multihead_attn": ("student/decoder/cross_attention", HEADS),
  "multihead_attn": ("teacher_branch/attention", 1),
}

_LINEAR_SHAPES = {  # out, in
  "linear_blip.0": "d s",
  f"{_DECODER}.linear1": "f d",
  f"{_DECODER}.linear2": "d f",
  "noun_3_classifier.0": "2d d",
  "noun_3_classifier.3": "c 2d",
  "bbox_predictor.0": "2d d",
  "bbox_predictor.3": "2d 2d",
  "bbox_predictor.6": "4 2d",
  "bbox_conf_predictor.0": "2d d",
  "bbox_conf_predictor.3": "1 2d",
  "proj_prompt": "d t",
  "proj_verb_pos": "d x",
  "proj_verb_neg": "d x",
  "proj_class_pos": "d x",
  "proj_class_neg": "d x",
}
# Every parameter that the reference uses. Its text embeddings are as wide as
# its hidden layer: `proj` maps d to d.
_SHAPES = {
  "proj": "d d",
  "proj_cls": "d d",
  "role_token_embed.weight": "r d",
  "verb_token_embed.weight": "v d",
  "boxprompter.base_prompt": "m m t",
  **dict.fromkeys(_EDGES, "1 t"),
  **{f"{name}.weight": axes for name, axes in _LINEAR_SHAPES.items()},
  **{f"{n}.bias": axes.split()[0] for n, axes in _LINEAR_SHAPES.items()},
  **{f"{n}.{part}": "d" for n in _NORMS for part in ("weight", "bias")},
  **{
    f"{name}.{part}": axes
    for name in _ATTENTIONS
    for part, axes in (
      ("in_proj_weight", "3d d"),
      ("in_proj_bias", "3d"),
      ("out_proj.weight", "d d"),
      ("out_proj.bias", "d"),
    )
  },
}


def _with_parts(*names: str) -> tuple[str, ...]:
  return tuple(f"{n}.{part}" for n in names for part in ("weight", "bias"))


def _attention(name: str) -> tuple[str, ...]:
  return (
    f"{name}.in_proj_weight",
    f"{name}.in_proj_bias",
    *_with_parts(f"{name}.out_proj"),
  )


def _layer(name: str, norms: int) -> tuple[str, ...]:
  parts = ("linear1", "linear2", *(f"norm{i + 1}" for i in range(norms)))
  return (
    *_attention(f"{name}.self_attn"),
    *_with_parts(*(f"{name}.{part}" for part in parts)),
  )


# Parameters of the reference without effect on any output: measured, none of
# them ever gets a gradient. A checkpoint may hold them; they are dropped.
UNUSED: tuple[str, ...] = (
  "hoi_prefix",
  "text_projection",
  "positional_embedding",
  "logit_scale",
  "IL_token_embed.weight",
  "RL_token_embed.weight",
  "token_embedding.weight",
  *_with_parts("proj_verb_large", "noun_1_classifier", "noun_2_classifier"),
  *_with_parts("ln1", "ln2"),
  "transformer.hoi_token_embed",
  "transformer.hoi_pos_embed",
  "transformer.proj",
  "transformer.proj_eval",
  "transformer.logit_scale",
  *_layer("transformer.glance_enc.layers.0", norms=2),
  *_layer("transformer.gaze_s1_enc.layers.0", norms=2),
  *_layer("transformer.gaze_s1_dec.layers.0", norms=3),
  *_attention("transformer.gaze_s1_dec.layers.0.multihead_attn"),
  *_with_parts(
    "transformer.verb_classifier.0", "transformer.verb_classifier.3"
  ),
  *_with_parts("transformer.linear", "transformer.linear_blip.0"),
  *_with_parts("transformer.ln1", "transformer.ln2"),
)


def params_from_state_dict(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The parameter tree of preset `reference` from the reference's names.

  Args:
    state: arrays by name, with or without a leading `module.`.

  Returns:
    float32 {"student": ..., "teacher_branch": ...}, as `TrainState.params`.

  Raises:
    InputError (a ValueError): parameters are missing, unexpected or of
      another shape; the message names all of them.
  """
  state = {k.removeprefix(_PREFIX): x for k, x in state.items()}
  used = {k: np.asarray(x) for k, x in state.items() if k not in UNUSED}
  _check(used)
  used = {k: x.astype(np.float32) for k, x in used.items()}
  tree: dict[str, Any] = {}
  for name, path in _ARRAYS.items():
    _put(tree, path, used[name])
  for name, path in _TRANSPOSED.items():
    _put(tree, path, used[name].T)
  for name, path in _EDGES.items():
    _put(tree, path, used[name][0])
  for name, path in _LINEARS.items():
    _put(tree, f"{path}/dense/kernel", used[f"{name}.weight"].T)
    _put(tree, f"{path}/dense/bias", used[f"{name}.bias"])
  for name, path in _NORMS.items():
    _put(tree, f"{path}/scale", used[f"{name}.weight"])
    _put(tree, f"{path}/bias", used[f"{name}.bias"])
  for name, (path, heads) in _ATTENTIONS.items():
    _put_attention(tree, path, used, name, heads)
  return tree


def state_dict_from_params(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The inverse, for any tree of that structure (gradients too)."""

  def get(path):
    value = params
    for key in path.split("/"):
      value = value[key]
    return np.asarray(value)

  state = {name: get(path) for name, path in _ARRAYS.items()}
  state |= {name: get(path).T for name, path in _TRANSPOSED.items()}
  state |= {name: get(path)[None] for name, path in _EDGES.items()}
  for name, path in _LINEARS.items():
    state[f"{name}.weight"] = get(f"{path}/dense/kernel").T
    state[f"{name}.bias"] = get(f"{path}/dense/bias")
  for name, path in _NORMS.items():
    state[f"{name}.weight"] = get(f"{path}/scale")
    state[f"{name}.bias"] = get(f"{path}/bias")
  for name, (path, _) in _ATTENTIONS.items():
    d = get(f"{path}/out/bias").size
    thirds = [f"{path}/{part}" for part in ("query", "key", "value")]
    state[f"{name}.in_proj_weight"] = np.concatenate(
      [get(f"{third}/kernel").reshape(d, d).T for third in thirds]
    )
    state[f"{name}.in_proj_bias"] = np.concatenate(
      [get(f"{third}/bias").reshape(d) for third in thirds]
    )
    state[f"{name}.out_proj.weight"] = get(f"{path}/out/kernel").reshape(d, d).T
    state[f"{name}.out_proj.bias"] = get(f"{path}/out/bias")
  return state


def _put(tree: dict[str, Any], path: str, value: np.ndarray) -> None:
  *parents, last = path.split("/")
  for key in parents:
    tree = tree.setdefault(key, {})
  tree[last] = np.ascontiguousarray(value)


def _put_attention(tree, path, state, name, heads) -> None:
  """Splits the stacked projections (query, key, value) into heads."""
  d = state[f"{name}.out_proj.bias"].size
  weights = np.split(state[f"{name}.in_proj_weight"], 3)
  biases = np.split(state[f"{name}.in_proj_bias"], 3)
  for part, weight, bias in zip(
    ("query", "key", "value"), weights, biases, strict=True
  ):
    kernel = weight.T.reshape(d, heads, d // heads)
    _put(tree, f"{path}/{part}/kernel", kernel)
    _put(tree, f"{path}/{part}/bias", bias.reshape(heads, d // heads))
  out = state[f"{name}.out_proj.weight"].T.reshape(heads, d // heads, d)
  _put(tree, f"{path}/out/kernel", out)
  _put(tree, f"{path}/out/bias", state[f"{name}.out_proj.bias"])


def _check(state: Mapping[str, np.ndarray]) -> None:
  """Raises one error that names everything that is wrong."""
  sizes = _sizes(state)
  problems = [f"missing: {name}" for name in _SHAPES if name not in state]
  problems += [f"unexpected: {name}" for name in state if name not in _SHAPES]
  for name, axes in _SHAPES.items():
    shape = state[name].shape if name in state else None
    wanted = tuple(_length(axis, sizes) for axis in axes.split())
    if shape is not None and shape != wanted:
      problems.append(f"misshapen: {name} is {shape}, expected {wanted}")
  if not problems and sizes["d"] % HEADS:
    problems.append(f"hidden size {sizes['d']} is no multiple of {HEADS} heads")
  if problems:
    raise InputError(
      "these parameters are not those of the reference:\n  "
      + "\n  ".join(problems),
      "give the state dict of the authors' model (caicch/Ov-GSR, commit "
      "4c6547d), whole",
    )


def _sizes(state: Mapping[str, np.ndarray]) -> dict[str, int]:
  """Size of each letter, by majority.

  So a misshapen parameter is named itself, and not all the others.
  """
  votes: dict[str, collections.Counter] = collections.defaultdict(
    collections.Counter
  )
  for name, axes in _SHAPES.items():
    shape = state[name].shape if name in state else ()
    for axis, length in zip(axes.split(), shape, strict=False):
      factor = int(axis[:-1] or 1) if axis[-1].isalpha() else 0
      if factor and length % factor == 0:
        votes[axis[-1]][length // factor] += 1
  return {letter: count.most_common(1)[0][0] for letter, count in votes.items()}


def _length(axis: str, sizes: Mapping[str, int]) -> int:
  if not axis[-1].isalpha():
    return int(axis)
  return int(axis[:-1] or 1) * sizes.get(axis[-1], 0)
