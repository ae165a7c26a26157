"""How to tell that a folder is SWiG: hashes of the release's names.

Made from the index files, the frames and the lists of image names of the
SWiG release (https://github.com/allenai/swig): sha256 over names, one a line.
"""

from collections.abc import Iterable, Mapping

from input_pipeline.ov_swig.layout import SPLITS
from input_pipeline.ov_swig.splits.split_file import names_digest
from input_pipeline.ov_swig.vocabulary import Vocabulary

_SPLITS = {  # sorted image names
  "train": "41dcdee46d192e2e08f2f9738f4c27f2a5d79dafcbf28f6ce9b89dba686c676a",
  "dev": "a666a10f4afad244c7f4711f585c0e3147c5bbb4b8f2edcf78e1c99579f289b2",
  "test": "0e75a893f703011f494e8d81e8570340cbb835a72dca61fba4aa7a47c8c3bac8",
}
_VOCABULARY = {  # sorted names; the numbers of index files are told apart
  "verbs": "d1d428fc6ddaa633c3fb7ea7ede7f5ed66814d5af5e1913530163835a36ac434",
  "roles": "ecb740ce0e0b1a9dfb847e9bb6da2772ac107486c52a289833b210295ea6da14",
  "nouns": "ca3f5347c1e42b371fa776c7541c51c55c7506609b778dcf5cc13ecbffbb7fff",
  # "jumping agent destination ...": a verb and its sorted roles
  "frames": "347a2d18b4f491d92a03c8b04aaed7a59d90c6be7e9770efb17408873dc482b6",
}


def compare(
  words: Vocabulary, images: Mapping[str, Iterable[str]]
) -> dict[str, bool]:
  """Which parts of a folder are those of the SWiG release.

  Args:
    words: its vocabulary.
    images: names of all images by split, those of unseen verbs included.

  Returns:
    Whether 'verbs', 'roles', 'nouns', 'frames' (as sets of roles), 'train',
    'dev' and 'test' are the release's.
  """
  frames = [
    " ".join([verb, *sorted(words.frame_roles(number))])
    for number, verb in enumerate(words.verbs)
  ]
  found = {
    "verbs": words.verbs,
    "roles": words.roles,
    "nouns": words.nouns,
    "frames": frames,
    **{split: images.get(split, ()) for split in SPLITS},
  }
  expected = _VOCABULARY | _SPLITS
  return {
    part: names_digest(names) == expected[part] for part, names in found.items()
  }
