"""Single faults, each of which a test must notice.

(name, file, text that occurs there once, its replacement).
"""

from benchmarks.mutants.interactions import PAIRS

TERMS = "mipd_jax/losses/terms.py"
SITUATIONS = "mipd_jax/losses/situations.py"
LOSS_BOXES = "mipd_jax/losses/box_ops.py"
LOSS_CONFIG = "mipd_jax/losses/config.py"
PRESETS = "mipd_jax/presets.py"
ATTENTION = "mipd_jax/models/attention.py"
DECODER = "mipd_jax/models/student.py"
LAYERS = "mipd_jax/models/layers.py"
STUDENT = "mipd_jax/models/student.py"
TEACHER = "mipd_jax/models/teaching/teacher_branch.py"
PROMPTS = "mipd_jax/models/visual_prompts.py"
SCORES = "mipd_jax/metrics/scores.py"
SWIG = "mipd_jax/metrics/swig.py"
SWIG_SCORES = "mipd_jax/metrics/swig_scores.py"
BOXES = "input_pipeline/boxes.py"
EVALUATE = "mipd_jax/evaluation/situations.py"
OBJECTIVE = "mipd_jax/reference/objective.py"
GEOMETRY = "mipd_jax/reference/box_layout.py"
CONFIG = "mipd_jax/config.py"

LOSSES = (
  ("smoothing: sign", TERMS, "* nll + smoothing *", "* nll - smoothing *"),
  ("smoothing: weight", TERMS, "(1 - smoothing) * nll", "nll"),
  (
    "role mean: mask dropped",
    TERMS,
    "jnp.where(mask, value, 0), axis=-1) / count",
    "value, axis=-1) / count",
  ),
  (
    "role mean: over all slots",
    TERMS,
    "count = jnp.maximum(jnp.sum(mask, axis=-1), 1)",
    "count = mask.shape[-1]",
  ),
  (
    "contrast: no hinge",
    TERMS,
    "jax.nn.relu(cosine(target, negative))",
    "cosine(target, negative)",
  ),
  (
    "cosine: one norm",
    TERMS,
    "_norm(a, epsilon) * _norm(b, epsilon)",
    "_norm(a, epsilon)",
  ),
  (
    "absolute value: gradient at 0",
    TERMS,
    "return x * jnp.sign(x)",
    "return jnp.abs(x)",
  ),
  (
    "box L1: mask dropped",
    TERMS,
    "jnp.sum(jnp.where(box_mask, distance, 0), axis=-1)",
    "jnp.sum(distance, axis=-1)",
  ),
  (
    "box losses: over all roles",
    TERMS,
    "count = jnp.maximum(jnp.sum(box_mask, axis=-1), 1)",
    "count = box_mask.shape[-1]",
  ),
  ("GIoU: sign", TERMS, "giou = 1 - box_ops", "giou = 1 + box_ops"),
  (
    "confidence: truth negated",
    TERMS,
    "jnp.where(truth, jax.nn.softplus(-logits)",
    "jnp.where(~truth, jax.nn.softplus(-logits)",
  ),
  (
    "nouns: mean of annotators",
    SITUATIONS,
    "jnp.sum(loss_BxRxA",
    "jnp.mean(loss_BxRxA",
  ),
  (
    "box losses: images without box count",
    SITUATIONS,
    "return Term(l1, has_box.astype(jnp.float32))",
    "return of_every(l1)",
  ),
  (
    "confidence: boxes only",
    SITUATIONS,
    "terms.masked_mean(value, given.batch[schema.ROLE_MASK]))",
    "terms.masked_mean(value, given.batch[schema.BOX_MASK]))",
  ),
  ("GIoU: hull ignored", LOSS_BOXES, "_ratio(hull - union, hull)", "0 * hull"),
  (
    "IoU: union counts twice",
    LOSS_BOXES,
    "area(a) + area(b) - intersection",
    "area(a) + area(b)",
  ),
  (
    "IoU: apart boxes overlap",
    LOSS_BOXES,
    "jnp.maximum(high - low, 0)\n  intersection",
    "high - low\n  intersection",
  ),
  (
    "weight: box",
    LOSS_CONFIG,
    "box: ranges.Weight = 5.0",
    "box: ranges.Weight = 4.0",
  ),
  (
    "weight: GIoU",
    LOSS_CONFIG,
    "giou: ranges.Weight = 5.0",
    "giou: ranges.Weight = 4.0",
  ),
  (
    "weight: confidence",
    LOSS_CONFIG,
    "confidence: ranges.Weight = 5.0",
    "confidence: ranges.Weight = 4.0",
  ),
  (
    "weight: distillation",
    PRESETS,
    '"scene_distill": 2.0',
    '"scene_distill": 1.0',
  ),
  (
    "weight: contrast",
    PRESETS,
    '"scene_contrast": 5.0',
    '"scene_contrast": 4.0',
  ),
  (
    "weight: gaze contrast",
    PRESETS,
    '"gaze_contrast": 1.0',
    '"gaze_contrast": 0.5',
  ),
  ("weight: nce_1", PRESETS, '"noun_text": 0.02', '"noun_text": 0.01'),
  (
    "smoothing of verbs",
    PRESETS,
    '"verb_smoothing": 0.3',
    '"verb_smoothing": 0.2',
  ),
  (
    "smoothing of nouns",
    PRESETS,
    '"noun_smoothing": 0.2',
    '"noun_smoothing": 0.3',
  ),
  (
    "distillation: L2",
    PRESETS,
    '"scene_distill_form": "l1"',
    '"scene_distill_form": "cosine"',
  ),
  (
    "teacher detached",
    PRESETS,
    '"detach_teacher": False',
    '"detach_teacher": True',
  ),
)
NETWORK = (
  (
    "self-attention: padding read",
    DECODER,
    "(y, y, keys_Bx1xR, train=train)",
    "(y, y, train=train)",
  ),
  (
    "cross-attention: no residual",
    DECODER,
    "x += drop(cross_attention(",
    "x = drop(cross_attention(",
  ),
  (
    "cross-attention: queries not normed",
    DECODER,
    "cross_attention(y, memory",
    "cross_attention(x, memory",
  ),
  (
    "feed-forward: no GELU",
    DECODER,
    "y = drop(layers.gelu(y))",
    "y = drop(y)",
  ),
  (
    "feed-forward: no residual",
    DECODER,
    "x += drop(layers.xavier_linear(width",
    "x = drop(layers.xavier_linear(width",
  ),
  (
    "no last norm",
    DECODER,
    'x = layers.layer_norm("norm_out", self.dtype)(x)',
    'layers.layer_norm("norm_out", self.dtype)(x)',
  ),
  ("GELU: tanh form", LAYERS, "approximate=False", "approximate=True"),
  (
    "norm: epsilon",
    LAYERS,
    "LAYER_NORM_EPSILON = 1e-5",
    "LAYER_NORM_EPSILON = 1e-3",
  ),
  (
    "attention: not scaled",
    ATTENTION,
    'project(queries, *weights("query")) / math.sqrt(width)',
    'project(queries, *weights("query"))',
  ),
  (
    "attention: value bias without the weights' sum",
    ATTENTION,
    "total_BxHxQx1 * bias[:, None]",
    "bias[:, None]",
  ),
  (
    "verb: not unit length",
    STUDENT,
    "embedding = layers.unit(summary) @ proj",
    "embedding = summary @ proj",
  ),
  (
    "verb texts: not unit length",
    STUDENT,
    "text = layers.unit(verb_text)\n",
    "text = verb_text\n",
  ),
  (
    "noun texts: not unit length",
    STUDENT,
    "text = layers.unit(noun_text).T",
    "text = noun_text.T",
  ),
  (
    "role queries: verb left out",
    STUDENT,
    "role_table[roles] + verb_table[verb_B][:, None]",
    "role_table[roles] + 0 * verb_table[verb_B][:, None]",
  ),
  (
    "box: no sigmoid",
    STUDENT,
    "jax.nn.sigmoid(box.astype(jnp.float32))",
    "box.astype(jnp.float32)",
  ),
  (
    "unused slots: not zero",
    STUDENT,
    'as in the reference."""\n  return jnp.where(role_mask[..., None], x, 0)',
    'as in the reference."""\n  return x',
  ),
  (
    "teacher: patch, not class token",
    TEACHER,
    "query = tokens.token(0)[:, None]",
    "query = tokens.token(1)[:, None]",
  ),
  (
    "teacher: other text",
    TEACHER,
    "outputs.SCENE_TARGET: aligned(_GLIMPSE_POS)",
    "outputs.SCENE_TARGET: aligned(_GAZE_POS)",
  ),
  (
    "prompts: later box wins",
    PROMPTS,
    "jnp.cumsum(inside, axis=1) - inside",
    "jnp.cumsum(inside[:, ::-1], axis=1)[:, ::-1] - inside",
  ),
  ("prompts: whole pixels", PROMPTS, "* (cell + 0.5) - 0.5", "* cell"),
  (
    "prompts: last cell left out",
    PROMPTS,
    "(index <= x_high)",
    "(index < x_high)",
  ),
  ("prompts: skipped boxes drawn", PROMPTS, " & box_mask[..., None, None]", ""),
  (
    "prompts: bottom edge",
    PROMPTS,
    "jnp.where(last, bottom, 0)",
    "jnp.where(last, top, 0)",
  ),
)
METRICS = (
  ("IoU threshold", BOXES, "IOU_THRESHOLD = 0.5", "IOU_THRESHOLD = 0.52"),
  ("value: all annotators", SCORES, "jnp.any(noun", "jnp.all(noun"),
  (
    "grnd: noun ignored",
    SWIG_SCORES,
    "judged.total(judged.noun & judged.box) / judged.divisor",
    "judged.total(judged.box) / judged.divisor",
  ),
  (
    "grnd: absent box negated",
    SCORES,
    "& (iou >= box_rule.IOU_THRESHOLD), ~present",
    "& (iou >= box_rule.IOU_THRESHOLD), present",
  ),
  (
    "grnd: confidence ignored",
    SCORES,
    "present & (iou >= box_rule.IOU_THRESHOLD)",
    "(iou >= box_rule.IOU_THRESHOLD)",
  ),
  ("top 5: four", SWIG_SCORES, "TOP = 5", "TOP = 4"),
  ("ties: true verb first", SCORES, " & (index < verb)", " & (index < 0)"),
  (
    "all: unused slots count",
    SCORES,
    "roles=roles,",
    "roles=mask.shape[-1],",
  ),
  (
    "share: of all slots",
    SCORES,
    "jnp.maximum(roles, 1)",
    "mask.shape[-1]",
  ),
  (
    "top 1: verb ignored",
    SWIG_SCORES,
    '"top1": lambda judged: judged.rank < 1',
    '"top1": lambda judged: True',
  ),
  (
    "sums: filler counts",
    EVALUATE,
    "np.asarray(x)[mask] for",
    "np.asarray(x) for",
  ),
  (
    "boxes: not cut to the image",
    OBJECTIVE,
    "return jnp.clip(corners, low,",
    "return jnp.clip(corners, -1e9 + 0 * low, 1e9 +",
  ),
  (
    "boxes: shifts swapped",
    OBJECTIVE,
    'return (corners - _per_axis(targets, "shift_1", "shift_0"))',
    'return (corners - _per_axis(targets, "shift_0", "shift_1"))',
  ),
  ("canvas: 224", GEOMETRY, "SHORTER_SIDE = 246", "SHORTER_SIDE = 224"),
  (
    "evaluator: absent box negated",
    BOXES,
    "given & overlaps(predicted, true), ~given",
    "given & overlaps(predicted, true), given",
  ),
  (
    "evaluator: macro by images",
    SWIG_SCORES,
    "rates = self.sums[there] / np.maximum(self.counts[there], 1)",
    "rates = self.sums[there] * 0 + self.sums.sum(0) / self.counts.sum(0)",
  ),
  (
    "evaluator: union counts twice",
    BOXES,
    "area(predicted) + area(true) - intersection",
    "area(predicted) + area(true)",
  ),
  (
    "evaluator: boxes not cut to the image",
    SWIG,
    "boxes.cut(flat.predicted_box, flat.sizes), true_boxes(flat)",
    "flat.predicted_box, true_boxes(flat)",
  ),
  (
    "evaluation: boxes not cut to the image",
    SWIG_SCORES,
    "boxes.cut(boxes.from_canvas(canvas, sizes), sizes)",
    "boxes.from_canvas(canvas, sizes)",
  ),
  (
    "evaluator: widths without 1",
    SWIG,
    "np.maximum(high - low + 1, 0)",
    "np.maximum(high - low, 0)",
  ),
)
OPTIMIZER = (
  (
    "learning rate",
    CONFIG,
    "learning_rate: ranges.Positive = 1e-4",
    "learning_rate: ranges.Positive = 1.1e-4",
  ),
  (
    "weight decay",
    CONFIG,
    "weight_decay: ranges.Weight = 1e-4",
    "weight_decay: ranges.Weight = 1e-1",
  ),
  (
    "clipping",
    CONFIG,
    "clip_norm: ranges.Positive = 0.1",
    "clip_norm: ranges.Positive = 1e-5",
  ),
)
MUTANTS = {
  "losses": LOSSES,
  "network": NETWORK,
  "metrics": METRICS,
  "optimizer": OPTIMIZER,
  "pairs": PAIRS,
}
