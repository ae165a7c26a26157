"""The teacher cache: record schema, writer, reader and verifier.

docs/formats.md describes the folder's layout, `plan` the content of a
record, `writer` how a cache is made and continued, `reader` how training reads
it.
"""

from input_pipeline.feature_cache.manifest import MANIFEST
from input_pipeline.feature_cache.plan import (
  ANSWERS,
  CLIP_LOGITS,
  INSTANCE_TEXT,
  PARTS,
  STUDENT,
  TEACHER,
  TEXT,
  VERB_LOGITS,
  CachePlan,
  Field,
  Shard,
  SplitPlan,
  parts_of,
)
from input_pipeline.feature_cache.reader import (
  ANNOTATIONS,
  COLUMNS,
  LABELS,
  NAMES,
  RATIONALES,
  Cache,
  CachedSplit,
  StoredSplit,
  is_complete,
  load_arrays,
  open_cache,
)
from input_pipeline.feature_cache.shard import ShardWriter
from input_pipeline.feature_cache.verify import verify
from input_pipeline.feature_cache.writer import CacheWriter, alone

__all__ = [
  "ANNOTATIONS",
  "ANSWERS",
  "CLIP_LOGITS",
  "COLUMNS",
  "INSTANCE_TEXT",
  "LABELS",
  "MANIFEST",
  "NAMES",
  "PARTS",
  "RATIONALES",
  "STUDENT",
  "TEACHER",
  "TEXT",
  "VERB_LOGITS",
  "Cache",
  "CachePlan",
  "CacheWriter",
  "CachedSplit",
  "Field",
  "Shard",
  "ShardWriter",
  "SplitPlan",
  "StoredSplit",
  "alone",
  "is_complete",
  "load_arrays",
  "open_cache",
  "parts_of",
  "verify",
]
