"""The Prefect server of a run that finds none."""

from __future__ import annotations

import signal
from threading import Thread


def start_temporary() -> None:
    """Start Prefect's temporary server, unless a server is configured, so that Ctrl-C passes it by.

    Started by Prefect itself it belongs to the terminal: Ctrl-C ends it too, and the run then waits for
    minutes to tell it that it was stopped. A signal that is blocked where a process starts stays blocked in
    it. The server ends with this process, by SIGTERM.

    Raises:
        RuntimeError: It does not start.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED

    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        return
    # Only here: with it the whole server is imported.
    from prefect.server.api.server import SubprocessASGIServer

    failed: list[Exception] = []

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            SubprocessASGIServer().start()  # one a process: the flow finds it started
        except Exception as error:
            failed.append(error)

    # In a thread of its own: this one stays open to Ctrl-C.
    starting = Thread(target=start, name="prefect-server", daemon=True)
    starting.start()
    starting.join()
    if failed:
        raise failed[0]
