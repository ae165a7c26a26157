"""True sentences about a run: who wrote its rationales, who taught it.

The report and the model card say them; what they are told is what the cache's
plan and the run's config hold.
"""

_TEMPLATE = "by template from the annotated frames, without a language model"
_MODEL = (
  "by a language model from the annotated frames; by template where none of "
  "its answers was accepted"
)
_OWN = "by those who published the dataset, whose files hold them"


def author(version: str, own: int = 0, total: int = 0) -> str:
  """Who wrote rationales, as it follows "written".

  Args:
    version: `rationales` of the cache's plan.
    own: of the images that are spoken of, those with texts in the dataset's
      own files, which come before all others.
    total: images that are spoken of; 0 where they were not looked at.
  """
  here = _MODEL if version.startswith("jrg") else _TEMPLATE
  if total and own == total:
    return _OWN
  if own:
    return f"for {own} of these {total} images {_OWN}; for the others {here}"
  if total:
    return here
  return f"{here}; texts in the dataset's own files come before them"


def use(*, teacher: bool, read: bool, preset: str) -> str:
  """What training did with the rationales, one sentence.

  Args:
    teacher: whether the run has a teacher branch with a term in use.
    read: whether anything of that branch reads rationales.
    preset: of the run, for the sentence.
  """
  if not teacher:
    return (
      f"This student was trained without a teacher (preset {preset}): it has "
      "read none of them."
    )
  if not read:
    return "The settings of this run leave them out: training read none."
  return (
    "In training an image's four texts guide what the teacher passes on to "
    "the student."
  )


def zero_shot(*, teacher: bool) -> str:
  """What the teacher's verbs are, beside the student's."""
  role = (
    "the student never sees it in use"
    if teacher
    else "this student was trained without it"
  )
  return f"The teacher is asked zero-shot, as the cache has it; {role}."
