"""``vmemmap campaign``."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click

from . import HOLDS, INCONCLUSIVE, INTERRUPTED, VIOLATED, json_option, print_json, tell

if TYPE_CHECKING:
    from ..campaign import Ended
    from ..campaign.coordinator import Backend, Observer
    from ..campaign.job import Job
    from ..campaign.results import Shown
    from ..campaign.running import Open

_FILE = click.Path(path_type=Path)

_RUN_OPTIONS: Final = (
    click.option(
        "--workers", type=click.IntRange(1, 1024), help="Worker processes; as many as there are CPUs by default."
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Run on the workers of this scheduler of dask.distributed (tcp://… or tls://…).",
    ),
    click.option("--tls-ca-file", type=_FILE, help="For a tls:// scheduler: the CA's certificate."),
    click.option("--tls-cert", type=_FILE, help="This client's certificate."),
    click.option("--tls-key", type=_FILE, help="This client's key."),
    click.option(
        "--allow-code",
        is_flag=True,
        help="Run scenarios that are Python files (FILE.py:NAME): that is code, with your rights.",
    ),
    json_option,
)


def _run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_RUN_OPTIONS):
        function = option(function)
    return function


@click.group("campaign")
def command() -> None:
    """Many explorations and stresses, on one machine or on a cluster, from a TOML file; docs/campaigns.md says more."""


@command.command("run")
@click.argument("spec", type=_FILE)
@_run_options
def run(spec: Path, **options: Any) -> int:
    """Run the campaign of SPEC.toml into SPEC.db beside it.

    What this version has answered there is not asked again. Exit codes: 0 every verdict is the expected one, 1 a
    violation that nobody expected or another difference, 2 wrong call or input, 3 something was not decided, 130
    interrupted: campaign resume goes on.

    \b
    Examples:
      vmemmap campaign run examples/campaign.toml
      vmemmap campaign run sweep.toml --scheduler tcp://10.0.0.1:8786 --json
    """
    from .. import campaign

    return _go(campaign.run, spec, options)


@command.command("resume")
@click.argument("file", type=_FILE)
@_run_options
def resume(file: Path, **options: Any) -> int:
    """Run what is not finished of the campaign in FILE, SPEC.toml or SPEC.db. Exit codes as of run.

    \b
    Example:
      vmemmap campaign resume sweep.db --workers 8
    """
    from .. import campaign

    return _go(campaign.resume, file, options)


@command.command("show")
@click.argument("file", type=_FILE)
@click.option(
    "--matrix",
    is_flag=True,
    help="Scenarios and policies in the lines; strategies, kernels and granules in the columns.",
)
@click.option(
    "--since", metavar="VERSION", help="What changed since a version or commit: verdicts, and executions per second."
)
@click.option("--parquet", type=click.Path(dir_okay=False, path_type=Path), help="Write the jobs to this file as well.")
@click.option(
    "--trace",
    type=click.IntRange(1),
    metavar="NUMBER",
    help="Print the trace of that job's violation, which vmemmap replay takes.",
)
@json_option
def show(file: Path, matrix: bool, since: str | None, parquet: Path | None, trace: int | None, as_json: bool) -> int:
    """Show what is in FILE, SPEC.toml or SPEC.db, also while it runs. Exit code 1: a verdict has changed --since
    VERSION.

    \b
    Examples:
      vmemmap campaign show sweep.db --matrix
      vmemmap campaign show sweep.db --trace 7 > trace.json
    """
    from .. import saving
    from ..campaign import database_of, results

    database = database_of(file)
    if parquet is not None:
        saving.check(parquet, "the table")
    shown = results.shown(database, since=since, documents=as_json or parquet is not None)
    if trace is not None:
        click.echo(results.trace_of(shown, trace))
    elif as_json:
        print_json(shown.to_dict())
    else:
        _print(shown, matrix)
    if parquet is not None:
        from ..campaign import parquet as writer

        writer.write(shown, parquet)
    return VIOLATED if shown.since is not None and shown.since.changes else HOLDS


def _go(start: Callable[..., Ended], file: Path, options: dict[str, Any]) -> int:
    from ..campaign import results

    as_json = options.pop("as_json")
    allow_code = options.pop("allow_code")
    with _stopping() as stop:
        ended = start(file, backend=_backend(**options), watcher=_watch, stop=stop, allow_code=allow_code)
    shown = results.shown(ended.database, documents=as_json)
    if as_json:
        print_json(shown.to_dict())
    else:
        _print(shown, matrix=False)
    if ended.summary.interrupted:
        tell(
            f"vmemmap: interrupted; {shown.count('finished')} of {len(shown.rows)} jobs are saved, "
            "campaign resume goes on"
        )
        return INTERRUPTED
    if shown.differing:
        return VIOLATED
    return INCONCLUSIVE if shown.undecided else HOLDS


def _backend(workers: int | None, scheduler: str | None, **tls: Path | None) -> Open:
    from ..campaign import processes

    if scheduler is None:
        if any(tls.values()):
            raise click.UsageError("--tls-ca-file, --tls-cert and --tls-key go with --scheduler")
        return processes(workers)
    if workers is not None:
        raise click.UsageError("--workers is for processes here; a scheduler has the workers that were started for it")
    from ..campaign.dask_cluster import Cluster, Tls

    @contextmanager
    def opened() -> Generator[Backend]:
        cluster = Cluster(scheduler, Tls(tls["tls_ca_file"], tls["tls_cert"], tls["tls_key"]))
        try:
            tell(f"vmemmap: {cluster.slots} workers of {scheduler}; dashboard: {cluster.dashboard}")
            if cluster.crowded:
                listed = ", ".join(cluster.crowded[:3])
                tell(
                    f"vmemmap: more than one thread in {listed}: tasks beside each other die together; "
                    "use dask worker --nthreads 1"
                )
            yield cluster
        finally:
            cluster.shutdown()

    return opened


def _watch(jobs: list[Job], finished: int, backend: Backend) -> AbstractContextManager[Observer]:
    from ..campaign.progress import Watch

    return Watch(jobs, finished, backend.slots)


@contextmanager
def _stopping() -> Generator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM are a wish that the coordinator looks for: nothing is torn out of a transaction."""
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(shown: Shown, matrix: bool) -> None:
    from rich.console import Console

    from ..campaign import table

    console = Console(width=None if Console().is_terminal else 165)
    if matrix:
        table.print_matrix(console, shown)
    else:
        table.print_table(console, shown)
    table.print_since(console, shown)
