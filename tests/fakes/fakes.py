"""Stand-ins for encoders and data sets, so that tests need no files."""

import hashlib

import jax.numpy as jnp
import numpy as np

from input_pipeline import schema
from input_pipeline.feature_cache import (
  ANNOTATIONS,
  COLUMNS,
  LABELS,
  NAMES,
  PARTS,
  CachePlan,
  CacheWriter,
  Field,
  SplitPlan,
)
from input_pipeline.feature_cache.plan import numpy_dtype
from input_pipeline.ov_swig.vocabulary import Vocabulary


class FakeClip:
  """An `Encoder` of `teachers.interfaces`.

  Images: mean colours of the patches, times a random matrix. Texts: hashed
  words, times a random matrix; equal words give equal vectors, of which a token
  has the sum up to itself.
  """

  def __init__(self, image_size=16, patch=8, width=8, text_width=6, seed=0):
    self.name = f"fake-{image_size}-{width}"
    self.revision = hashlib.sha256(f"{self.name}{seed}".encode()).hexdigest()
    self.image_size = image_size
    self.patch = patch
    self.logit_scale = 10.0
    rng = np.random.default_rng(seed)
    self.params = {
      "patch": rng.normal(size=(3, width)).astype(np.float32),
      "project": rng.normal(size=(width, text_width)).astype(np.float32),
      "words": rng.normal(size=(1000, text_width)).astype(np.float32),
    }

  @property
  def image_params(self):
    return self.params

  def image_tokens(self, params, pixels):
    size, grid = self.patch, self.image_size // self.patch
    x = pixels.astype(jnp.float32) / 255 - 0.5
    x = x.reshape(x.shape[0], grid, size, grid, size, 3).mean(axis=(2, 4))
    x = x.reshape(x.shape[0], grid * grid, 3) @ params["patch"]
    return jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)

  def image_embedding(self, params, pixels):
    return self.image_tokens(params, pixels)[:, 0] @ params["project"]

  def image_features(self, params, pixels):
    return (
      self.image_tokens(params, pixels),
      self.image_embedding(params, pixels),
    )

  def text_tokens(self, params, ids, mask):
    words = params["words"][ids] * mask[..., None]
    return jnp.cumsum(words, axis=1) * mask[..., None]

  def text_embedding(self, params, ids, mask):
    return (params["words"][ids] * mask[..., None]).sum(axis=1)

  def tokenize(self, texts, max_length):
    ids = np.zeros((len(texts), max_length), np.int32)
    mask = np.zeros((len(texts), max_length), bool)
    for i, text in enumerate(texts):
      for j, word in enumerate(text.split()[:max_length]):
        digest = hashlib.sha256(word.encode()).digest()
        ids[i, j] = int.from_bytes(digest[:4], "little") % 1000
        mask[i, j] = True
    return ids, mask


def vocabulary() -> Vocabulary:
  """Five verbs, four roles, nine noun classes."""
  return Vocabulary(
    verbs=("chasing", "feeding", "jumping", "sleeping", "throwing"),
    roles=("agent", "item", "obstacle", "place"),
    nouns=("blank", "n1", "n2", "n3", "n4", "n5", "n6", "oov", "Pad"),
    frames=((0, 1, 3), (0, 1, 3), (0, 2, 3), (0, 3), (0, 1)),
    verb_definitions=(
      "go after in order to catch",
      "give food to",
      'move off the ground; "he jumped"',
      "",
      "send through the air",
    ),
    verb_abstracts=(
      "the AGENT chases an ITEM in a PLACE.",
      "the AGENT feeds the ITEM at a PLACE",
      "an AGENT jumps over an OBSTACLE at a PLACE",
      "the AGENT sleeps at a PLACE",
      "",
    ),
    role_definitions=("The entity acting", "The thing", "In the way", ""),
    noun_glosses=(
      ("nothing",),
      ("dog", "domestic dog"),
      ("man", "adult male"),
      ("ball",),
      ("fence", "fencing"),
      ("park", "commons"),
      ("apple",),
      ("something else",),
      ("padding",),
    ),
    noun_definitions=(
      "",
      'a furry animal; "the dog barked"',
      "an adult person (as opposed to a woman)",
      "a round thing",
      "a barrier of wood",
      "a green place",
      "a red fruit",
      "",
      "",
    ),
  )


# Without those about instances.
_STANDARD = tuple(
  part for part in PARTS if part not in ("answers", "instance_text")
)


def plan(**changes) -> CachePlan:
  """The plan of a small cache: 11 training and 5 dev examples."""
  values = {
    "teacher": "big",
    "teacher_revision": "t1",
    "student": "small",
    "student_revision": "s1",
    "dataset": "images-a",
    "vocabulary": "words-a",
    "rationales": "templates-1 seed=0",
    "options": (("geometry", "letterbox"), ("dtype", "bfloat16")),
    "fields": (
      Field(schema.STUDENT_TOKENS, (5, 8), "bfloat16"),
      Field(schema.TEACHER_TOKENS, (5, 12), "bfloat16"),
      Field(schema.RATIONALE_TOKENS, (4, 7, 6), "bfloat16"),
      Field(schema.RATIONALE_MASK, (4, 7), "bool"),
      Field(schema.VERB_LOGITS, (3,), "float32"),
      Field(schema.CLIP_LOGITS, (3,), "float32"),
    ),
    "splits": (
      SplitPlan("train", 11, _STANDARD),
      SplitPlan("dev", 5, ("student", "verb_logits", "clip_logits")),
    ),
    "examples_per_shard": 4,
    "code": (("mipd_jax.teachers.clip", "1"), ("a.b", "1")),
  }
  return CachePlan(**{**values, **changes})


def features(cache_plan: CachePlan, split: str) -> dict[str, np.ndarray]:
  """Random features of a whole split, the same at every call."""
  entry = cache_plan.split(split)
  values = {}
  for part in entry.parts:
    for field in cache_plan.part_fields(part):
      seed = f"{split} {field.name}".encode()
      rng = np.random.default_rng(list(seed))
      value = rng.normal(size=(entry.num_examples, *field.shape))
      if field.dtype == "bool":
        value = value > 0
      values[field.name] = value.astype(numpy_dtype(field.dtype))
  return values


def columns(num_examples: int) -> dict[str, np.ndarray]:
  """Annotation columns with the shapes of the contract, all zero but INDEX."""
  axes = {"R": schema.MAX_ROLES, "A": schema.ANNOTATORS, "B": num_examples}
  values = {}
  for key in COLUMNS:
    entry = schema.ANNOTATIONS[key]
    shape = [axes.get(a) or int(a) for a in entry.axes.split()]
    values[key] = np.zeros(shape, entry.dtype)
  values[schema.INDEX] = np.arange(num_examples, dtype=np.int32)
  return values


def write_cache(folder, cache_plan: CachePlan, *, finish: bool = True) -> None:
  """Writes (or continues) a cache of `features`."""
  writer = CacheWriter(folder, cache_plan)
  paths = [LABELS]
  bank = {"verb_text": np.ones((3, 6), np.float32)}
  if not writer.is_done(LABELS):
    writer.write_arrays(LABELS, bank)
  for split in cache_plan.splits:
    path = f"{split.name}/{ANNOTATIONS}"
    paths.append(path)
    if not writer.is_done(path):
      names = np.array([f"{i}.jpg" for i in range(split.num_examples)])
      values = columns(split.num_examples)
      writer.write_arrays(path, {NAMES: names, **values})
    values = features(cache_plan, split.name)
    for shard in writer.pending(split.name):
      with writer.open_shard(shard) as file:
        # Two writes a shard: a batch need not fill one.
        for rows in np.array_split(np.arange(shard.start, shard.stop), 2):
          file.write({key: values[key][rows] for key in PARTS[shard.part]})
  if finish:
    writer.finish(tuple(paths))
