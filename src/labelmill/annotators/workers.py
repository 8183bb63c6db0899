"""A process of another environment that answers over its pipes, and is started anew when it fails."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from labelmill.annotators.encoders.lavis_worker import read_message, write_message
from labelmill.errors import ServiceError

_LAST_LINES = 3

Reply = tuple[dict[str, Any], Any]


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How to start a worker.

    Attributes:
        name: For messages.
        command: The process.
        variables: Its environment variables.
        greeting: The first request; it loads the model.
        load_timeout_s: Seconds that the greeting may take.
        timeout_s: Seconds that any other request may take.
    """

    name: str
    command: list[str]
    variables: dict[str, str]
    greeting: dict[str, Any]
    load_timeout_s: float
    timeout_s: float


class Worker:
    """A worker process. A request that finds it dead, or waits too long, is put once more to a new one.

    Args:
        spec: How to start it.
        check: Raises what the user should read when a reply says `error`.
    """

    def __init__(self, spec: WorkerSpec, check: Callable[[dict[str, Any]], None]) -> None:
        self._spec = spec
        self._check = check
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._lock = threading.Lock()
        self.starts = 0
        self.greeted: dict[str, Any] = {}

    @property
    def pid(self) -> int | None:
        """The process, if one runs."""
        return self._process.pid if self._process else None

    def start(self) -> dict[str, Any]:
        """Start the worker if none runs; returns its answer to the greeting.

        Raises:
            ServiceError: It died or hung twice.
        """
        self._ask({}, None)
        return self.greeted

    def ask(self, header: dict[str, Any], array: Any = None) -> Reply:
        """Put a request and wait for its answer.

        Raises:
            ServiceError: The worker died or hung twice at this request.
        """
        reply = self._ask(header, array)
        assert reply is not None  # noqa: S101 - a request has an answer
        return reply

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        process.kill()
        process.wait()
        if self._log:
            self._log.close()

    def _ask(self, header: dict[str, Any], array: Any) -> Reply | None:
        with self._lock:
            trouble = ""
            for _ in range(2):
                try:
                    if self._process is None:
                        self._greet()
                    if not header:
                        return None
                    with self._deadline(self._spec.timeout_s) as process:
                        reply = _exchange(process, header, array)
                except (EOFError, OSError, ValueError) as error:
                    trouble = self._epitaph(error)
                    self.close()
                except BaseException:  # Ctrl-C: its answer would be taken for that to the next request
                    self.close()
                    raise
                else:
                    self._check(reply[0])
                    return reply
            raise ServiceError(
                f"the {self._spec.name} worker failed twice at the same request",
                got=trouble,
                do="a smaller batch_size needs less memory, a longer timeout_s gives a slow machine time",
            )

    def _greet(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            self._spec.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._spec.variables,
            start_new_session=True,  # Ctrl-C reaches us alone, and we end it
        )
        self.starts += 1
        with self._deadline(self._spec.load_timeout_s) as process:
            self.greeted, _ = _exchange(process, self._spec.greeting, None)
        try:
            self._check(self.greeted)
        except Exception:
            self.close()
            raise

    @contextlib.contextmanager
    def _deadline(self, timeout_s: float) -> Iterator[subprocess.Popen[bytes]]:
        """Kill the worker when it takes too long: whoever waits on its pipe then finds the end of it."""
        process = self._process
        assert process is not None  # noqa: S101 - started by the caller
        timer = threading.Timer(timeout_s, process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()

    def _epitaph(self, error: Exception) -> str:
        process, log = self._process, self._log
        if process is None or log is None:
            return str(error)
        if not isinstance(error, ValueError):  # it talks nonsense, but lives
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        said = " / ".join(line.strip() for line in lines)
        end = str(error) if process.returncode is None else f"exit status {process.returncode}"
        return end + (f", last words: {said}" if said else "")


def _exchange(process: subprocess.Popen[bytes], header: dict[str, Any], array: Any) -> Reply:
    write_message(cast("BinaryIO", process.stdin), header, array)
    return read_message(cast("BinaryIO", process.stdout))
