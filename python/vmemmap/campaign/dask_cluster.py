"""Dask's distributed scheduler, for campaigns that outgrow one machine (extra ``vmemmap[dask]``).

The scheduler is trusted: a worker of Dask runs what its scheduler sends, and so does this client with what comes back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from ..errors import SpecError
from .coordinator import DiedBesideError
from .version import Code, code, difference

__all__ = ["Cluster", "Tls"]

_CONNECT_SECONDS: Final = 10
_WORKER_SECONDS: Final = 30
_GONE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Tls:
    """As Dask's own commands take it."""

    ca_file: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class Cluster(Executor):
    """The workers of a scheduler. A job whose workers died too often fails with `DiedBesideError`."""

    def __init__(self, address: str, tls: Tls | None = None) -> None:
        try:
            from distributed import Client, Security
        except ImportError as error:
            raise SpecError("--scheduler needs distributed: pip install 'vmemmap[dask]'") from error
        # One line each, which are printed here.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        security = None
        if tls is not None and any(vars(tls).values()):
            for name, file in vars(tls).items():
                if file is None or not file.is_file():
                    raise SpecError(
                        f"--tls-{name.replace('_', '-')} is {file}: TLS takes a CA file, a certificate and a key"
                    )
            security = Security(
                tls_ca_file=str(tls.ca_file),
                tls_client_cert=str(tls.cert),
                tls_client_key=str(tls.key),
                require_encryption=True,
            )
        if not address.rpartition(":")[2].isdigit():
            # Dask refuses it as well, and complains once more when its half-made client is collected.
            raise SpecError(
                f"scheduler is {address[:200]!r}: expected tcp://HOST:PORT or tls://HOST:PORT, "
                "as dask scheduler prints it"
            )
        # What is configured for Dask counts as well.
        options: Any = security or Security()
        configured = options.get_connection_args("client")
        if address.startswith("tls://") and configured.get("ssl_context") is None:
            # Dask says so as well, and complains once more when its half-made client is collected.
            raise SpecError(f"scheduler {address}: TLS takes --tls-ca-file, --tls-cert and --tls-key")
        try:
            self._client: Any = Client(
                address, timeout=_CONNECT_SECONDS, security=security, set_as_default=False, name="vmemmap-campaign"
            )
        except (OSError, ValueError, TypeError, ImportError) as error:
            raise SpecError(f"scheduler {address}: {_one_line(error)}; dask scheduler starts one") from error
        self.address = address
        self._own = code()
        self._threads: dict[str, int] = {}
        self._asked = float("-inf")
        self._alive = time.monotonic()
        try:
            self._client.wait_for_workers(1, timeout=_WORKER_SECONDS)
            self._check_versions()
        except SpecError:
            self.shutdown()
            raise
        except (OSError, TimeoutError) as error:
            self.shutdown()
            raise SpecError(
                f"scheduler {address} has no worker; dask worker {address} --nthreads 1 starts one"
            ) from error

    @property
    def dashboard(self) -> str:
        """Dask's own page, for a browser."""
        return str(self._client.dashboard_link)

    @property
    def crowded(self) -> list[str]:
        """Workers with more than one thread: tasks beside each other share the death of one."""
        return sorted(address for address, threads in self._threads.items() if threads > 1)

    @property
    def slots(self) -> int:
        """One job for each worker, whatever its threads. Raises ``SpecError`` if the scheduler is gone."""
        now = time.monotonic()
        if now - self._asked > 1.0:
            self._asked = now
            try:
                self._threads = dict(self._client.nthreads())
                self._alive = now
            except Exception as error:
                # The client goes on to look for its scheduler; for how long is for us to say.
                self._threads = {}
                if now - self._alive > _GONE_SECONDS or self._client.status in ("closed", "closing"):
                    raise SpecError(
                        f"scheduler {self.address} is gone ({_one_line(error)}); "
                        "what is finished is saved, resume goes on"
                    ) from error
        return len(self._threads)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """To whom the scheduler chooses: with no more jobs than workers, one that is idle.

        Not to a worker by name: if that one goes while it is the only one, Dask (2026.8) keeps the task for it for
        good, even if others are allowed.
        """
        answer: Future[Any] = Future()
        answer.set_running_or_notify_cancel()
        # Not a pure function: two answers of the same job are two runs of it.
        task = self._client.submit(function, *arguments, **named, pure=False, retries=0)
        task.add_done_callback(partial(_pass_on, answer))
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave. Tasks that nobody waits for any more are dropped by the scheduler."""
        with suppress(Exception):
            self._client.close(timeout=0.5)

    def _check_versions(self) -> None:
        """Raises ``SpecError`` with one line about the first worker that runs other code."""
        self._threads = dict(self._client.nthreads())
        try:
            answers: dict[str, object] = self._client.run(code, on_error="return")
        except Exception as error:
            raise SpecError(
                f"scheduler {self.address}: its workers cannot be asked for their version: {_one_line(error)}"
            ) from error
        for worker, theirs in sorted(answers.items()):
            if not isinstance(theirs, Code):
                raise SpecError(
                    f"worker {worker} has no vmemmap that can run campaigns, "
                    f"the coordinator {self._own.version}: {_one_line(theirs)}"
                )
            differs = difference(self._own, theirs)
            if differs is not None:
                raise SpecError(f"worker {worker} {differs}")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _pass_on(answer: Future[Any], task: Any) -> None:
    """What became of a task. Called by Dask in a thread of its own."""
    from distributed import KilledWorker

    if answer.done():
        return
    try:
        answer.set_result(task.result(timeout=10))
    except KilledWorker as error:
        died = getattr(error.last_worker, "address", None) or "?"
        answer.set_exception(DiedBesideError(f"the worker died beside it, the last one {died}"))
    except (asyncio.CancelledError, CancelledError, OSError, TimeoutError):
        # Finished where nobody can fetch it: the worker that had the answer is gone, or the scheduler forgot the task.
        answer.set_exception(CancelledError())
    except BaseException as error:
        answer.set_exception(error)
