"""Requests to an OpenAI-compatible server, and what went wrong with them.

Any number of threads may ask. Each request has a connection of its own, so
that none meets one that the server has closed meanwhile. What may pass (no
connection, no answer in time, 429, 5xx, an answer that cannot be read) is asked
again after a pause that doubles; a server that says how long to wait
(Retry-After) holds up all requests for that long.

A key comes from the environment variable `KEY` alone. It goes into a header
and nowhere else; where a server repeats it, messages leave it out.
"""

import contextlib
import dataclasses
import email.utils
import http.client
import json
import math
import os
import random
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from input_pipeline.io.errors import InputError

KEY = "MIPD_API_KEY"
CHAT, COMPLETIONS = "/chat/completions", "/completions"
AGAIN = "the texts so far are kept: the same command goes on with them"
# Faults of one request until it is given up; no answer in time counts thrice.
PATIENCE, _TIMEOUT_COSTS = 9, 3
# Seconds: the first pause, the longest, and the longest that a server may ask.
FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_ASKED = 0.5, 30.0, 600.0
_LARGEST_ANSWER = 2**24
_PIECE = 2**16
# Besides 5xx: statuses that may pass.
_PASSING = (408, 409, 425, 429)
_WRONG_KEY = (401, 403)
_SHOWN = 200
_Read = TypeVar("_Read")


class Refusal(Exception):
  """The server will not do this, however often it is asked.

  Attributes:
    status: of HTTP.
    said: its explanation.
  """

  def __init__(self, status: int, said: str):
    super().__init__(f"{status}: {said}")
    self.status, self.said = status, said


class Unreadable(Exception):
  """An answer of the right kind does not hold what was asked for."""


class Stopped(Exception):
  """`Endpoint.stop` was called before this request was answered."""


class _Fault(Exception):
  """Something that may pass.

  Attributes:
    problem, remedy: as of an InputError, if it does not.
    cost: how much of `PATIENCE` it takes.
    wait: seconds that the server asks for; None if it does not say.
    is_lost: whether there was no connection, or it broke.
  """

  def __init__(
    self,
    problem: str,
    remedy: str,
    *,
    cost: int = 1,
    wait: float | None = None,
    is_lost: bool = False,
  ):
    super().__init__(problem)
    self.problem, self.remedy = problem, remedy
    self.cost, self.wait, self.is_lost = cost, wait, is_lost


@dataclasses.dataclass(frozen=True)
class Address:
  """Where a model is served.

  Attributes:
    url: as http://HOST:PORT/v1, without a slash at the end.
    name: of the model; "" where none is given.
    form: `CHAT` or `COMPLETIONS` where the address ends with it; else "".
  """

  url: str
  name: str
  form: str

  @classmethod
  def parse(cls, text: str) -> "Address":
    """Takes http://HOST:PORT/v1#NAME apart.

    Raises:
      InputError: it has another form, or holds a key.
    """
    remedy = f"give http://HOST:PORT/v1#NAME, and a key in {KEY}"
    try:
      parts = urllib.parse.urlsplit(text)
      whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
      whole = False
    if not whole:
      raise InputError(f"{text!r:.200} is no address of a model", remedy)
    if parts.username or parts.password or parts.query:
      # Neither is shown: they may be secret.
      raise InputError(
        f"the address of the model at {parts.hostname} has a user, a password "
        "or a query in it",
        remedy,
      )
    path, form = parts.path.rstrip("/"), ""
    for one in (CHAT, COMPLETIONS):
      if not form and path.endswith(one):
        path, form = path.removesuffix(one), one
    return cls(f"{parts.scheme}://{parts.netloc}{path}", parts.fragment, form)


class Endpoint:
  """One server.

  Attributes:
    url: its address, as http://HOST:PORT/v1.
    after_loss: called before a request is repeated whose connection was lost,
      as the server may be another one now.
  """

  def __init__(self, url: str, timeout: float):
    """Takes the key from the environment.

    Args:
      url: as `Address.url`.
      timeout: seconds in which every answer must have come.

    Raises:
      InputError: the key cannot be a header.
    """
    self.url = url
    self.after_loss: Callable[[], None] | None = None
    self._parts = urllib.parse.urlsplit(url)
    self._timeout = timeout
    self._key = os.environ.get(KEY, "").strip()
    if not (self._key.isascii() and self._key.isprintable()):
      raise InputError(
        f"{KEY} holds characters that no key has", "set it to the key alone"
      )
    is_secure = self._parts.scheme == "https"
    self._secure = ssl.create_default_context() if is_secure else None
    self._stopped = threading.Event()
    self._not_before = 0.0
    self._open: set[socket.socket] = set()
    self._lock = threading.Lock()

  def ask(
    self,
    path: str,
    body: Mapping[str, Any] | None,
    read: Callable[[dict[str, Any]], _Read],
    *,
    patience: int = PATIENCE,
    timeout: float = math.inf,
    checked: bool = True,
  ) -> _Read:
    """One answer of the server.

    Args:
      path: below the address.
      body: JSON to post; None gets.
      read: takes from the answer what was asked for, or raises `Unreadable`.
      patience: faults after which it is given up.
      timeout: seconds, where less than the endpoint's.
      checked: calls `after_loss` before the next try after a lost connection.

    Raises:
      Refusal: the server will not do this.
      Stopped: by `stop`.
      InputError: it did not answer, or with nothing of use; or the key is
        wrong.
    """
    timeout, spent, lost = min(timeout, self._timeout), 0, False
    while True:
      self._wait_for_turn()
      if lost and checked and self.after_loss:
        self.after_loss()
      lost = False
      try:
        return read(self._once(path, body, timeout))
      except Unreadable as error:
        fault = _Fault(
          f"{self.url} answers with something else than was asked for: {error}",
          f"is it an OpenAI-compatible server? {AGAIN}",
        )
      except _Fault as error:
        fault = error
      lost = fault.is_lost
      spent += fault.cost
      if self._stopped.is_set():
        raise Stopped
      if spent >= patience:
        raise InputError(fault.problem, fault.remedy)
      self._pause(spent, fault.wait)

  def stop(self, *, at_once: bool = False) -> None:
    """Ends what waits; `at_once` also what is under way."""
    self._stopped.set()
    if at_once:
      with self._lock:
        for one in self._open:
          with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)

  def resume(self) -> None:
    """Lets requests be made again after `stop`."""
    self._stopped.clear()

  def _wait_for_turn(self) -> None:
    while (left := self._not_before - time.monotonic()) > 0:
      if self._stopped.wait(left):
        break
    if self._stopped.is_set():
      raise Stopped

  def _pause(self, spent: int, asked: float | None) -> None:
    """Waits before the next try, ever longer; all wait if the server asks."""
    if asked is not None:
      until = time.monotonic() + min(asked, _LONGEST_ASKED)
      self._not_before = max(self._not_before, until)
    pause = min(FIRST_PAUSE * 2 ** (spent - 1), _LONGEST_PAUSE)
    # Requests that failed together do not come back together.
    self._stopped.wait(pause * random.uniform(0.5, 1.0))

  def _once(
    self, path: str, body: Mapping[str, Any] | None, timeout: float
  ) -> dict[str, Any]:
    try:
      status, headers, content = self._exchange(path, body, timeout)
    except TimeoutError:
      raise _Fault(
        f"{self.url} did not answer within {timeout:g} s",
        "ask for fewer texts at a time or wait longer: see docs/rationales.md, "
        f"'A served model'; {AGAIN}",
        cost=_TIMEOUT_COSTS,
      ) from None
    except (OSError, http.client.HTTPException) as error:
      said = getattr(error, "strerror", None) or str(error)
      raise _Fault(
        f"{self.url} does not answer: {said or type(error).__name__}",
        f"start the server there, or mend the address; {AGAIN}",
        is_lost=True,
      ) from None
    if not 200 <= status < 300:
      raise self._failure(status, headers, self._said(content))
    return self._parsed(content)

  def _exchange(
    self, path: str, body: Mapping[str, Any] | None, timeout: float
  ) -> tuple[int, Mapping[str, str], bytes]:
    """(status, headers, content), all within the timeout."""
    headers = {"Accept": "application/json", "Connection": "close"}
    if self._key:
      headers["Authorization"] = f"Bearer {self._key}"
    data = None
    if body is not None:
      headers["Content-Type"] = "application/json"
      data = json.dumps(body).encode()
    until = time.monotonic() + timeout
    with self._connected(timeout) as (connection, line):
      method = "GET" if data is None else "POST"
      connection.request(method, self._parts.path + path, data, headers)
      response = connection.getresponse()
      content, piece = b"", b" "
      while piece and len(content) < _LARGEST_ANSWER:
        left = until - time.monotonic()
        if left <= 0:
          raise TimeoutError
        if response.isclosed():
          break
        line.settimeout(left)
        piece = response.read1(_PIECE)
        content += piece
      if not piece and response.length:
        raise http.client.IncompleteRead(content, response.length)
      return response.status, response.headers, content

  @contextlib.contextmanager
  def _connected(
    self, timeout: float
  ) -> Iterator[tuple[http.client.HTTPConnection, socket.socket]]:
    host, port = self._parts.hostname, self._parts.port
    if self._secure:
      connection = http.client.HTTPSConnection(
        host, port, timeout=timeout, context=self._secure
      )
    else:
      connection = http.client.HTTPConnection(host, port, timeout=timeout)
    with contextlib.closing(connection):
      connection.connect()
      line = connection.sock
      with self._lock:
        self._open.add(line)
      try:
        yield connection, line
      finally:
        with self._lock:
          self._open.discard(line)

  def _failure(
    self, status: int, headers: Mapping[str, str], said: str
  ) -> Exception:
    """What a status other than success means."""
    name = f"{status} {http.client.responses.get(status, '')}".strip()
    if status in _WRONG_KEY:
      given = f"refuses the key in {KEY}" if self._key else "wants a key"
      return InputError(
        f"{self.url} {given} ({name}: {said})",
        f"put the server's key into the environment variable {KEY}",
      )
    if status >= 500 or status in _PASSING:
      return _Fault(
        f"{self.url} fails ({name}: {said})",
        f"look at the server's log; if it is too busy ask for fewer texts at a "
        f"time; {AGAIN}",
        wait=_seconds(headers.get("Retry-After")),
      )
    if 300 <= status < 400:
      said = f"it sends one to {headers.get('Location', 'another place')}"
    return Refusal(status, f"{name}: {said}")

  def _parsed(self, content: bytes) -> dict[str, Any]:
    try:
      answer = json.loads(content)
    except (ValueError, RecursionError):
      answer = None
    if not isinstance(answer, dict):
      is_page = content.lstrip()[:1] == b"<"
      what = "HTML" if is_page else "what is no JSON object"
      raise _Fault(
        f"{self.url} answers with {what}: {self._said(content)}",
        "give the address of the API itself, which mostly ends in /v1; "
        f"{AGAIN}",
      )
    return answer

  def _said(self, content: bytes) -> str:
    """The words of a server's message, without the key."""
    text = content[: 2**14].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, RecursionError):
      text = _message(json.loads(text)) or text
    if self._key:
      text = text.replace(self._key, "***")
    text = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    return repr(text[:_SHOWN])


def _message(error: Any) -> str:
  """What an error's JSON says in words; "" if it is not found."""
  while isinstance(error, dict):
    keys = [k for k in ("error", "message", "detail") if error.get(k)]
    error = error[keys[0]] if keys else ""
  return error if isinstance(error, str) else ""


def _seconds(value: str | None) -> float | None:
  """Retry-After: seconds, or a date; None if there is none."""
  if value is None:
    return None
  with contextlib.suppress(ValueError):
    return max(0.0, float(value))
  with contextlib.suppress(ValueError, TypeError):
    until = email.utils.parsedate_to_datetime(value)
    return max(0.0, until.timestamp() - time.time())
  return None
