"""gs:// as a folder of this machine, for tests."""

import pathlib

from etils.epath import backend, gpath


class FolderBackend:
  """epath's backend of local files, behind names that begin with gs://."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder

  def __getattr__(self, name: str):
    method = getattr(backend.os_backend, name)

    def call(*names, **options):
      return method(*map(self._local, names), **options)

    return call

  def _local(self, name):
    if isinstance(name, str) and name.startswith("gs://"):
      return str(self._folder / name.removeprefix("gs://"))
    return name


def install(monkeypatch, folder: pathlib.Path) -> None:
  """Serves gs://NAME/... from FOLDER/NAME/... until the test ends."""
  monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
  monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", FolderBackend(folder))
