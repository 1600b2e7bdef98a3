"""A campaign's database: its jobs, and what came of them, in one SQLite file that is whole whenever it is looked at.

A *round* is one list of jobs under one code. `campaign run` begins one if the jobs or the code are new, `campaign
resume` goes on with the last. A result belongs to a job and to the code that gave it, so a job that is done under this
code is not done again for another round, and two codes can be compared.

Each commit is on the disk before anybody hears of it (WAL with ``synchronous=FULL``), and the primary key lets nobody
write a result twice.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

from ..errors import SpecError
from .job import Job
from .version import Code

__all__ = ["NoRoomError", "Result", "Round", "Store"]

_APPLICATION: Final = 0x766D656D
_FORMAT: Final = 1

_SCHEMA: Final = (
    "CREATE TABLE round (id INTEGER PRIMARY KEY, started TEXT NOT NULL, title TEXT NOT NULL, version TEXT NOT NULL, "
    "git TEXT, package TEXT NOT NULL, core TEXT NOT NULL, host TEXT NOT NULL)",
    "CREATE TABLE job (id TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE round_job (round INTEGER NOT NULL, number INTEGER NOT NULL, job TEXT NOT NULL, "
    "PRIMARY KEY (round, number), UNIQUE (round, job)) WITHOUT ROWID",
    "CREATE TABLE result (job TEXT NOT NULL, package TEXT NOT NULL, core TEXT NOT NULL, round INTEGER NOT NULL, "
    "version TEXT NOT NULL, git TEXT, kernel TEXT, policies TEXT NOT NULL, expect TEXT, verdict TEXT NOT NULL, "
    "violated TEXT NOT NULL, done INTEGER NOT NULL, "
    "seconds REAL NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL, finished TEXT NOT NULL, "
    "document TEXT NOT NULL, trace TEXT, PRIMARY KEY (job, package, core), UNIQUE (round, job))",
    "CREATE TABLE event (id INTEGER PRIMARY KEY, round INTEGER NOT NULL, job TEXT NOT NULL, at TEXT NOT NULL, "
    "failed INTEGER NOT NULL, "
    "message TEXT NOT NULL)",
)

_MOST_BYTES: Final = 64 << 20
"""Of one value in a database that somebody else may have made."""


class NoRoomError(SpecError):
    """The database cannot take another result: what it has is safe."""


@dataclass(frozen=True)
class Round:
    """One list of jobs under one code."""

    id: int
    title: str
    code: Code
    git: str | None
    started: str

    @property
    def version(self) -> str:
        """As results show it."""
        return shown_version(self.code.version, self.git, self.code.package)


@dataclass(frozen=True)
class Result:
    """What came of a job, as stored."""

    job: str
    version: str
    git: str | None
    package: str
    core: str
    kernel: str | None
    policies: dict[str, str]
    expect: str | None
    verdict: str
    violated: tuple[str, ...]
    done: int
    seconds: float
    host: str
    started: str
    finished: str
    document: dict[str, Any]

    @property
    def shown_version(self) -> str:
        """Package version with the commit, or with the digest of the sources where no commit is known."""
        return shown_version(self.version, self.git, self.package)

    def is_of(self, version: str) -> bool:
        """Whether its code is the one that this names: a version, a commit or a digest, or the beginning of the latter
        two."""
        if version in (self.version, self.shown_version):
            return True
        names = [self.git or "", self.package, self.core, self.shown_version.partition("+")[2]]
        return len(version) >= 4 and any(name.startswith(version) for name in names)


_RESULT: Final = tuple(field.name for field in fields(Result))


def shown_version(version: str, git: str | None, package: str) -> str:
    """``0.1.0+7e7e82acb6c0``."""
    return f"{version}+{git or package}"


def now() -> str:
    """In ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class Store:
    """The database of a campaign. Reading never changes it, nor needs the right to."""

    def __init__(self, path: Path, connection: sqlite3.Connection, copy: Path | None = None) -> None:
        self.path = path
        self._db = connection
        self._copy = copy

    @classmethod
    def create(cls, path: Path) -> Store:
        """To write to; made if it is not there yet. Raises ``SpecError`` if it is something else, or cannot be
        written."""
        with _complaining(path):
            db = _connect(f"file:{quote(str(path.absolute()))}?mode=rwc")
            try:
                _check(db, path, fresh=True)
                # A read-only file is opened all the same.
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                if not _tables(db):
                    with _transaction(db):
                        for statement in _SCHEMA:
                            db.execute(statement)
                        db.execute(f"PRAGMA application_id={_APPLICATION}")
                        db.execute(f"PRAGMA user_version={_FORMAT}")
            except BaseException:
                db.close()
                raise
        return cls(path, db)

    @classmethod
    def read(cls, path: Path) -> Store:
        """To read: also in a folder that nobody may write to, on a full disk, or while a coordinator writes."""
        if not path.is_file():
            raise SpecError(f"{path}: no such campaign; vmemmap campaign run SPEC.toml begins one")
        with _complaining(path):
            copy = None
            # SQLite tidies up behind a reader only if it may write; that reader writes nothing else.
            mode = "rw" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "ro"
            db = _connect(f"file:{quote(str(path.absolute()))}?mode={mode}")
            try:
                _check(db, path, fresh=False)
            except sqlite3.OperationalError:
                db.close()
                # Readers of a WAL share memory in a file beside it. Where none can be made, and the WAL holds
                # something, it is read elsewhere; without a WAL the file alone is all there is.
                if (wal := path.with_name(path.name + "-wal")).exists() and wal.stat().st_size:
                    copy = Path(tempfile.mkdtemp(prefix="vmemmap-campaign."))
                    for file in (path, wal):
                        shutil.copyfile(file, copy / file.name)
                    db = _connect(f"file:{quote(str(copy / path.name))}?mode=rw")
                else:
                    db = _connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1")
                _check(db, path, fresh=False)
            db.execute("PRAGMA query_only=ON")
        return cls(path, db, copy)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What was committed stays, whatever happens here."""
        with suppress(sqlite3.Error):
            self._db.close()
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)

    def last_round(self) -> Round | None:
        """None in a database in which nothing was begun."""
        with _complaining(self.path):
            row = self._db.execute(
                "SELECT id, title, version, package, core, git, started FROM round ORDER BY id DESC LIMIT 1"
            ).fetchone()
        return None if row is None else Round(row[0], row[1], Code(*row[2:5]), row[5], row[6])

    def begin(self, title: str, jobs: Sequence[Job], code: Code, git: str | None, host: str) -> Round:
        """The round of these jobs under this code: the last one if it is that, else a new one."""
        last = self.last_round()
        if last is not None and last.code == code and [job.id for job in self.jobs(last)] == [job.id for job in jobs]:
            return last
        with _complaining(self.path), _transaction(self._db):
            values = (now(), title, code.version, git, code.package, code.core, host)
            cursor = self._db.execute(
                "INSERT INTO round (started, title, version, git, package, core, host) VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            number = int(cursor.lastrowid or 0)
            self._db.executemany("INSERT OR IGNORE INTO job VALUES (?, ?)", ((job.id, job.text()) for job in jobs))
            self._db.executemany(
                "INSERT INTO round_job VALUES (?, ?, ?)", ((number, place, job.id) for place, job in enumerate(jobs))
            )
        return Round(number, title, code, git, values[0])

    def jobs(self, round: Round) -> list[Job]:
        """All of a round, in order."""
        return self._jobs(round, "")

    def pending(self, round: Round) -> list[Job]:
        """Those that are not done: neither in this round, nor in another one under the same code."""
        return self._jobs(
            round,
            "AND NOT EXISTS (SELECT 1 FROM result s WHERE s.job = r.job "
            "AND (s.round = r.round OR (s.package = :package AND s.core = :core)))",
        )

    def _jobs(self, round: Round, condition: str) -> list[Job]:
        joined = "round_job r JOIN job j ON j.id = r.job"
        query = f"SELECT j.id, j.document FROM {joined} WHERE r.round = :round {condition} ORDER BY r.number"
        with _complaining(self.path):
            rows = self._db.execute(
                query, {"round": round.id, "package": round.code.package, "core": round.code.core}
            ).fetchall()
        jobs: list[Job] = []
        for id, document in rows:
            try:
                job = Job.parse(document)
            except SpecError as error:
                raise SpecError(f"{self.path}: {error}") from error
            if job.id != id:
                raise SpecError(f"{self.path}: job {id!r:.40} is not the one that its name says")
            jobs.append(job)
        return jobs

    def record(self, round: Round, answers: Iterable[tuple[Job, dict[str, Any]]], git: str | None) -> int:
        """Keep what came of jobs, all or nothing; how many were new. Once this returns it is on the disk."""
        rows = [
            (
                *(job.id, answer["code"]["package"], answer["code"]["core"], round.id, answer["code"]["version"], git),
                *(
                    answer.get("kernel"),
                    json.dumps(answer.get("policies", {})),
                    answer.get("expect"),
                    answer["verdict"],
                ),
                *(
                    answer.get("violated", ""),
                    min(answer.get("done", 0), (1 << 63) - 1),
                    answer["seconds"],
                    answer["host"],
                    answer["pid"],
                ),
                *(answer["started"], now(), json.dumps(answer["document"])),
                None if answer.get("trace") is None else json.dumps(answer["trace"]),
            )
            for job, answer in answers
        ]
        with _complaining(self.path), _transaction(self._db):
            marks = ", ".join("?" * 19)
            before = self._db.total_changes
            self._db.executemany(f"INSERT OR IGNORE INTO result VALUES ({marks})", rows)
            return self._db.total_changes - before

    def note(self, round: Round, job: Job, message: str, *, failed: bool = False) -> None:
        """Something that happened to a job without a result; `failed`: it was given up, until somebody resumes."""
        with _complaining(self.path), _transaction(self._db):
            self._db.execute(
                "INSERT INTO event (round, job, at, failed, message) VALUES (?, ?, ?, ?, ?)",
                (round.id, job.id, now(), int(failed), message),
            )

    def events(self, round: Round) -> list[tuple[str, str, bool, str]]:
        """(time, job, whether it was given up, what happened), oldest first."""
        with _complaining(self.path):
            rows = self._db.execute(
                "SELECT at, job, failed, message FROM event WHERE round = ? ORDER BY id", (round.id,)
            ).fetchall()
        return [(at, job, bool(failed), message) for at, job, failed, message in rows]

    def results(self, documents: bool = False) -> Iterator[Result]:
        """Of all rounds, oldest first; each with its whole answer only if that is asked for."""
        columns = ", ".join(name if documents or name != "document" else "'{}'" for name in _RESULT)
        query = f"SELECT {columns} FROM result ORDER BY finished, job"
        with _complaining(self.path):
            for row in self._db.execute(query):
                values: dict[str, Any] = dict(zip(_RESULT, row, strict=True))
                for name in ("policies", "document"):
                    values[name] = json.loads(values[name])
                    if not isinstance(values[name], dict):
                        raise ValueError(f"{name} of a result is no object")
                values["violated"] = tuple(str(values["violated"]).split())
                yield Result(**values)

    def trace(self, job: str, code: Code) -> str | None:
        """The trace file of a violation."""
        with _complaining(self.path):
            row = self._db.execute(
                "SELECT trace FROM result WHERE job = ? ORDER BY (package = ? AND core = ?) DESC, finished DESC",
                (job, code.package, code.core),
            ).fetchone()
        return None if row is None else row[0]


def _connect(uri: str) -> sqlite3.Connection:
    # Transactions are begun and ended here, not guessed by the module.
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0)
    db.execute("PRAGMA trusted_schema=OFF")
    if sys.version_info >= (3, 11):
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    return db


def _tables(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")]


def _check(db: sqlite3.Connection, path: Path, *, fresh: bool) -> None:
    """Nothing but the tables of a campaign: no view and no trigger that somebody put there."""
    tables = _tables(db)
    if not tables and fresh:
        return
    if not tables:
        raise SpecError(f"{path}: no campaign was begun here; vmemmap campaign run SPEC.toml begins one")
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise SpecError(f"{path}: a database, but not of a campaign")
    if (format := db.execute("PRAGMA user_version").fetchone()[0]) != _FORMAT or tables != list(_SCHEMA):
        raise SpecError(
            f"{path}: a campaign of format {format} with other tables than this version has (format {_FORMAT})"
        )


@contextmanager
def _transaction(db: sqlite3.Connection) -> Generator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk ends the transaction by itself.
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


@contextmanager
def _complaining(path: Path) -> Generator[None]:
    """What SQLite says, as one line."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if any(words in text for words in ("full", "disk I/O", "readonly", "unable to open")):
            raise NoRoomError(
                f"{path}: cannot be written: {text}; what is in it is kept, and campaign resume goes on"
            ) from error
        raise SpecError(f"{path}: {text}") from error
    except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{path}: not a campaign's database, or a damaged one: {error}") from error
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror or error}") from error
