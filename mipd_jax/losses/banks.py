"""What the losses know about the training split, besides text embeddings."""

import numpy as np
from jaxtyping import Int

VERB_LOG_PRIOR = "verb_log_prior"  # float32 [V] log share of training images
VERB_TRAINED = "verb_trained"  # bool [V] whether the verb has any
# bool [roles, C]: the nouns that fill each role in training.
ROLE_CANDIDATES = "role_candidates"


def of_verbs(images: Int[np.ndarray, "v"]) -> dict[str, np.ndarray]:
  """Both banks, from the number of training images per verb.

  A verb without images gets the prior of a verb with one image.
  """
  share = np.maximum(images, 1) / max(1, images.sum())
  return {
    VERB_LOG_PRIOR: np.log(share).astype(np.float32),
    VERB_TRAINED: images > 0,
  }
