"""Processes that prepare one folder at a time."""

import threading

import filelock

from mipd_jax.stages import inputs


def test_another_process_is_waited_for(tmp_path):
  """A second lock object acts like another process."""
  other = filelock.FileLock(tmp_path / inputs._LOCK, thread_local=False)
  other.acquire()
  order = []

  def make():
    with inputs._alone(tmp_path):
      order.append("here")

  thread = threading.Thread(target=make)
  thread.start()
  thread.join(timeout=1.5)  # longer than the first try
  assert thread.is_alive()
  order.append("other")
  other.release()
  thread.join(timeout=10)
  assert order == ["other", "here"]


def test_the_lock_is_given_back_after_an_error(tmp_path):
  try:
    with inputs._alone(tmp_path):
      raise RuntimeError("no space")
  except RuntimeError:
    pass
  with filelock.FileLock(tmp_path / inputs._LOCK, timeout=0):
    pass


def test_a_folder_that_nobody_may_write_needs_no_lock(tmp_path, monkeypatch):
  monkeypatch.setattr(inputs.os, "access", lambda *_: False)
  with inputs._alone(tmp_path):
    pass
  assert not list(tmp_path.iterdir())
