"""`InputError`, which bad input raises, and system errors as `InputError`s."""

import errno
import os

_FULL = {errno.ENOSPC: "full", errno.EDQUOT: "over quota", errno.EFBIG: "full"}
# Libraries that write from C++ report the system's text without the number.
_FULL_WORDS = tuple(os.strerror(number) for number in _FULL)


class InputError(ValueError):
  """Input that cannot be used as it stands.

  The message names the thing (file, record, role, field) and ends with the
  remedy. Command lines print it alone, without a traceback.
  """

  def __init__(self, problem: str, remedy: str):
    super().__init__(f"{problem}\n  Remedy: {remedy}")
    self.problem = problem
    self.remedy = remedy


def is_full(error: BaseException) -> bool:
  """Whether an error of Python or a C++ library means: no space left."""
  if isinstance(error, OSError) and error.errno is not None:
    return error.errno in _FULL
  return any(words in str(error) for words in _FULL_WORDS)


def of_system(error: BaseException) -> InputError | None:
  """A system error as an InputError with a remedy; None for other errors.

  Args:
    error: any exception; its causes count too, since libraries wrap errors of
      the system.
  """
  seen: list[BaseException] = []
  while error is not None and error not in seen:
    seen.append(error)
    error = error.__cause__ or error.__context__
  for one in seen:
    if is_full(one):
      return InputError(
        f"no space left (or a file size limit reached) while writing"
        f"{_place(one)}",
        "free space there, or choose another folder; run the same command "
        "again, what is finished is kept",
      )
  for one in seen:
    if isinstance(one, OSError) and one.errno is not None:
      return InputError(
        f"{one.strerror or type(one).__name__}{_place(one)}",
        "give a path that you may read and write, or mend its permissions",
      )
    if isinstance(one, MemoryError):
      return InputError(
        "out of memory", "use a smaller batch, or a machine with more memory"
      )
  return None


def _place(error: BaseException) -> str:
  name = getattr(error, "filename", None)
  return "" if name is None else f": {os.fsdecode(name)}"
