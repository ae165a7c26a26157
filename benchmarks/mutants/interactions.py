"""Single faults in the code of interactions; form as in `situations`."""

LOSS = "mipd_jax/losses/interactions.py"
DISTILLATION = "mipd_jax/losses/distillation.py"
GEOMETRY = "mipd_jax/models/pairs.py"
STUDENT = "mipd_jax/models/pairs.py"
TEACHER = "mipd_jax/models/pairs.py"
NMS = "mipd_jax/evaluation/interactions.py"
COLUMNS = "input_pipeline/hico_det/pair_columns.py"
EVALUATION = "mipd_jax/evaluation/interactions.py"
RULES = "mipd_jax/rationales/interactions.py"
MATCHING = "mipd_jax/metrics/hico_det_matching.py"

PAIRS = (
  ("focal: no focus", LOSS, "jnp.maximum(wrong, 1e-6) ** gamma", "1.0"),
  (
    "focal: alpha exchanged",
    LOSS,
    "jnp.where(truth, alpha, 1 - alpha)",
    "jnp.where(truth, 1 - alpha, alpha)",
  ),
  (
    "focal: untrained interactions are negatives",
    LOSS,
    "(scores > out.NEVER / 2) & given.banks[VERB_TRAINED]\n  logits",
    "scores > out.NEVER / 2\n  logits",
  ),
  (
    "focal: not divided by positives",
    LOSS,
    "return Term(total / positives, positives)",
    "return Term(total, jnp.ones_like(total))",
  ),
  (
    "labels of filler pairs",
    LOSS,
    "(numbers >= 0) & given.batch[schema.PAIR_MASK][..., None]",
    "numbers >= 0",
  ),
  (
    "image's cross entropy: first label counts for all",
    LOSS,
    "count = jnp.maximum(labels.sum(axis=-1), 1)",
    "count = 1",
  ),
  (
    "distillation: teacher follows",
    DISTILLATION,
    "jax.lax.stop_gradient(target) if detached else target",
    "target",
  ),
  (
    "gaze: unlabelled pairs too",
    LOSS,
    "terms.masked_mean(value, self.labelled)",
    "value.mean(axis=-1)",
  ),
  (
    "KL: all objects' interactions",
    LOSS,
    "terms.name_groups(trained & own, known & own,",
    "terms.name_groups(trained, known,",
  ),
  (
    "geometry: area",
    GEOMETRY,
    "boxes_cxcywh[..., 2] * boxes",
    "boxes_cxcywh[..., 3] * boxes",
  ),
  (
    "geometry: union counts twice",
    GEOMETRY,
    "areas.sum(axis=-1) - shared",
    "areas.sum(axis=-1)",
  ),
  (
    "geometry: offset the other way",
    GEOMETRY,
    "thing[..., :2] - person[..., :2]",
    "person[..., :2] - thing[..., :2]",
  ),
  (
    "geometry: object's cells are the person's",
    GEOMETRY,
    "flat(pairs[..., 4:])",
    "flat(pairs[..., :4])",
  ),
  (
    "student: interactions of any object",
    STUDENT,
    "jnp.where(own, scores, outputs.NEVER)",
    "scores",
  ),
  (
    "student: filler pairs are scored",
    STUDENT,
    "own = own & pairs[schema.PAIR_MASK][..., None]",
    "own = own",
  ),
  (
    "student: the person is shown twice",
    STUDENT,
    "pooled(thing),",
    "pooled(person),",
  ),
  (
    "student: no word for the object",
    STUDENT,
    "(gain * text)",
    "(0 * text)",
  ),
  (
    "student: the image's own score is left out",
    STUDENT,
    "bias + share * scene",
    "bias + 0 * scene",
  ),
  (
    "teacher: a pair reads everywhere",
    TEACHER,
    "person | thing | filler",
    "person | ~person",
  ),
  (
    "teacher: no prompt on objects",
    TEACHER,
    "[boxes[..., :4], boxes[..., 4:]]",
    "[boxes[..., :4], boxes[..., :4]]",
  ),
  ("nms: power of the object's IoU", NMS, "POWER = 0.5", "POWER = 1.0"),
  (
    "nms: across interactions",
    NMS,
    "if hits.interaction[i] == hits.interaction[row]",
    "if hits.interaction[i] >= 0",
  ),
  ("pairs: overlap", COLUMNS, "_OVERLAP = 0.5", "_OVERLAP = 0.7"),
  (
    "pairs: labels of other objects",
    COLUMNS,
    "(overlap >= _OVERLAP) & (pairs.objects[:, None] == kind)",
    "overlap >= _OVERLAP",
  ),
  (
    "pairs: negatives first",
    COLUMNS,
    "drawn), ~known))",
    "drawn), known))",
  ),
  (
    "pairs: boxes end at their last pixel",
    COLUMNS,
    "_EDGE = np.array([0, 0, 1, 1])",
    "_EDGE = np.array([0, 0, 0, 0])",
  ),
  (
    "pairs: the better IoU of the two",
    COLUMNS,
    "overlap = np.minimum(",
    "overlap = np.maximum(",
  ),
  (
    "evaluation: detections do not count",
    EVALUATION,
    "jax.nn.sigmoid(logits) * detected[..., None]",
    "jax.nn.sigmoid(logits)",
  ),
  (
    "evaluation: filler is a hypothesis",
    EVALUATION,
    'result["score"][row] >= 0',
    'result["score"][row] >= -2',
  ),
  (
    "evaluation: too many kept",
    EVALUATION,
    "hits.score[:top_k]",
    "hits.score",
  ),
  (
    "rationales: verbs of an activity",
    RULES,
    "joined.split(SEPARATOR)",
    '[""]',
  ),
  (
    "rationales: unseen interactions may be told",
    RULES,
    "if i not in seen and",
    "if i in seen and",
  ),
  (
    "metric: a second choice",
    MATCHING,
    "np.unique(chosen[by_score], return_index=True)",
    "None, np.arange(len(by_score))",
  ),
  (
    "metric: pixels from 0 against 1",
    MATCHING,
    "detected.boxes[rows] + 1",
    "detected.boxes[rows]",
  ),
)
