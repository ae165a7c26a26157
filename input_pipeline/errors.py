"""The one exception that bad input raises."""


class InputError(ValueError):
  """Input that cannot be used as it stands.

  The message names the thing (file, record, role, field) and ends with the
  remedy. Command lines print it alone, without a traceback.
  """

  def __init__(self, problem: str, remedy: str):
    super().__init__(f"{problem}\n  Remedy: {remedy}")
    self.problem = problem
    self.remedy = remedy
