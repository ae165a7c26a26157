"""Names of the model's outputs, which losses and metrics read.

Letters as in `input_pipeline.schema`; E is the width of text embeddings.
Everything is float32 except where a head's logits stay in compute dtype
until a loss casts them.
"""

# Student: all that inference has.
VERB_EMBEDDING = "verb_embedding"  # [B, E], in text space
VERB_SCORES = "verb_scores"  # [B, V] logits
NOUN_CLOSED = "noun_closed"  # [B, R, C] logits of the classifier
NOUN_TEXT = "noun_text"  # [B, R, C] logits against noun texts
NOUN_SCORES = "noun_scores"  # [B, R, C] the evaluated logits
ROLE_EMBEDDING = "role_embedding"  # [B, R, E], in text space
BOX_NOUN_SCORES = "box_noun_scores"  # [B, R, C] of the tokens in each box
FORETOLD = "foretold"  # [B, M - 1, T] teacher's patches, by the student's eyes
BOX = "box"  # [B, R, 4] cx cy w h, shares of the canvas side
BOX_CONFIDENCE = "box_confidence"  # [B, R] logit
PAIR_EMBEDDING = "pair_embedding"  # [B, P, E], in text space
PAIR_SCORES = "pair_scores"  # [B, P, V] logits, NEVER for other objects' verbs
NEVER = -1e9
# Teacher branch: training only.
SCENE_TARGET = "scene_target"  # [B, E] teacher vision aligned with glimpse+
SCENE_POSITIVE = "scene_positive"  # [B, E] glimpse+ in the same space
SCENE_NEGATIVE = "scene_negative"  # [B, E] glimpse- in the same space
GAZE_TARGET = "gaze_target"  # [B, R, E] or [B, E] where the preset pools
GAZE_NEGATIVE = "gaze_negative"  # the same shape
GAZE_POSITIVE = "gaze_positive"  # [B, R, E] gaze+ about each instance
TEACHER_VERB_SCORES = "teacher_verb_scores"  # [B, V] of SCENE_TARGET
TEACHER_NOUN_SCORES = "teacher_noun_scores"  # [B, R, C] of GAZE_TARGET
TEACHER_PAIR_SCORES = "teacher_pair_scores"  # [B, P, V] of GAZE_TARGET
