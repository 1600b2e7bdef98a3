"""The pytest plugin: a race that was found stays found, and one that was shut out stays out.

The mark ``vmemmap_explore`` explores a scenario before the body of a test, which may look closer at the fixture
``vmemmap_result``; the fixture ``vmemmap_machine`` is a machine that must be whole when the test is over.

pytest imports this in every session of every project beside which the package is installed, so that the laboratory
itself is imported only for a test that uses it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import isfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from .errors import SpecError, VmemmapError
from .spec import parse_budget

if TYPE_CHECKING:
    from .lab.expectation import Case, Miss
    from .lab.exploration import Result
    from .machine.machine import Machine

__all__ = ["vmemmap_machine", "vmemmap_result"]

EXPLORE = "vmemmap_explore"
MACHINE = "vmemmap_machine"
RESULT = "vmemmap_result"

_MARKS = (
    f"{EXPLORE}(scenario, *, variant=None, expect=None, invariant=None, budget=None, strategy='exhaustive', "
    "seed=None, depth=None, policies=None): explore the interleavings of a scenario and fail unless they show what "
    "is expected (docs/pytest.md)",
    (
        f"{MACHINE}(*, at_rest=True, image=None, **keywords): configure the machine of the fixture {MACHINE}; the "
        "keywords are those of vmemmap.Machine, or with an image those of vmemmap.Machine.load"
    ),
)

#: Violations of a machine at rest that are listed one by one.
MOST_LISTED = 10

_EXPECTED, _VERDICT, _SCOPE = "vmemmap_expected", "vmemmap_verdict", "vmemmap_scope"

_DONE = pytest.StashKey["tuple[Result, Miss | None]"]()


def _integer(text: str) -> int:
    return int(text, 0)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and the setting of the plugin."""
    group = parser.getgroup("vmemmap", "races on vmemmap")
    group.addoption(
        "--vmemmap-budget",
        metavar="BUDGET",
        help="Budget of every exploration (5000, 10s, 5m), whatever its mark says.",
    )
    group.addoption(
        "--vmemmap-traces",
        metavar="DIR",
        help="Where traces of unexpected violations are saved; by default beside tmp_path.",
    )
    group.addoption(
        "--vmemmap-seed",
        metavar="SEED",
        type=_integer,
        help="Seed of every exploration that draws (random, pct), whatever its mark says.",
    )
    parser.addini("vmemmap_budget", "Budget of explorations whose mark gives none (60s).", default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks; refuse wrong options before anything runs.

    Raises:
        pytest.UsageError: A budget that is none, a directory that cannot be made.
    """
    for line in _MARKS:
        config.addinivalue_line("markers", line)
    setattr(pytest.mark, EXPLORE, _ExploreMark(pytest.MarkGenerator.__getattr__(pytest.mark, EXPLORE)))
    seed = config.getoption("vmemmap_seed")
    if seed is not None and not 0 <= seed < 1 << 64:
        raise pytest.UsageError(f"--vmemmap-seed: {seed}: expected an integer of 64 bits")
    for where, budget in (
        ("--vmemmap-budget", config.getoption("vmemmap_budget")),
        ("vmemmap_budget", config.getini("vmemmap_budget")),
    ):
        try:
            if budget is not None:
                parse_budget(budget)
        except SpecError as error:
            raise pytest.UsageError(f"{where}: {error}") from None
    traces = config.getoption("vmemmap_traces")
    if traces is not None:
        # Absolute, since a worker process of a distributed run may have another working directory.
        folder = config.invocation_params.dir / traces
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(f"--vmemmap-traces: {folder}: {error.strerror}") from None
        config.option.vmemmap_traces = str(folder)


class _ExploreMark:
    """The mark, for which a function alone is a scenario unless it is a test: pytest takes it for what is decorated."""

    def __init__(self, decorator: pytest.MarkDecorator) -> None:
        self._decorator = decorator

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        alone = args[0] if len(args) == 1 and not kwargs else None
        if isfunction(alone) and not alone.__name__.startswith("test"):
            return self._decorator.with_args(alone)
        return self._decorator(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decorator, name)


def _refusal(what: str, error: Exception) -> BaseException:
    """To raise from None: an error of the test in one line, without a traceback through this package."""
    return pytest.fail.Exception(f"{what}: {error}", pytrace=False)


# ---- explorations
# ------------------------------------------------------------------------------------------------------


def _marks(node: pytest.Item) -> list[pytest.Mark]:
    """The marks nearest to the test, in the order of the source: of the function or its parameters, else of the
    class, else of the module.
    """
    found = list(node.iter_markers_with_node(EXPLORE))
    # Decorators apply from the bottom.
    return [mark for owner, mark in reversed(found) if owner is found[0][0]]


def _cases(marks: list[pytest.Mark]) -> list[Case]:
    """The cases that the marks ask for.

    Raises:
        SpecError: A mark is wrong.
    """
    from .lab.expectation import parse_cases

    return [case for mark in marks for case in parse_cases(mark.args, mark.kwargs)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Several explorations of one function are tests of their own."""
    marks = _marks(metafunc.definition)
    if not marks:
        return
    try:
        cases = _cases(marks)
    except VmemmapError:
        # The test itself reports it: an error here would take the whole file with it.
        return
    if len(cases) > 1:
        if RESULT not in metafunc.fixturenames:
            metafunc.fixturenames.append(RESULT)
        drawn = [(case, len(marks)) for case in cases]
        metafunc.parametrize(RESULT, drawn, indirect=True, ids=[case.name for case in cases])


def _case(item: pytest.Item) -> Case:
    """The exploration of this test.

    Raises:
        SpecError: A mark is wrong, or there is not exactly one exploration for this test.
    """
    marks = _marks(item)
    if not marks:
        raise SpecError(f"there is no result without the mark {EXPLORE}")
    callspec = getattr(item, "callspec", None)
    drawn: tuple[Case, int] | None = callspec.params.get(RESULT) if callspec else None
    if drawn is not None and drawn[1] == len(marks):
        return drawn[0]
    cases = _cases(marks)
    if len(cases) > 1:
        raise SpecError(
            f"{', '.join(case.name for case in cases)}: one test explores one variant; several marks or variants go "
            "with a function that is no method of unittest, and not beside a mark of pytest.param"
        )
    return cases[0]


def _explored(item: pytest.Item) -> tuple[Result, Miss | None]:
    """What the exploration of this test found, and what of it was not expected; explored when it is first asked for."""
    done = item.stash.get(_DONE, None)
    if done is None:
        config = item.config
        try:
            case = _case(item)
            result = case.explore(
                override=config.getoption("vmemmap_budget"),
                default=config.getini("vmemmap_budget"),
                seed=config.getoption("vmemmap_seed"),
            )
        except (VmemmapError, OSError) as error:
            raise _refusal(EXPLORE, error) from None
        if result.interrupted:
            raise KeyboardInterrupt
        done = item.stash[_DONE] = (result, case.judge(result))
        item.user_properties += [(_EXPECTED, case.expect), (_VERDICT, result.words), (_SCOPE, result.scope_words)]
    return done


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Explore once the fixtures are there, unless one of them has asked for the result."""
    if item.get_closest_marker(EXPLORE) is not None and isinstance(item, pytest.Function):
        _explored(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """What was not expected fails the test, before its body."""
    result, miss = item.stash.get(_DONE, (None, None))
    if result is not None and miss is not None:
        from .report.miss import miss_text

        pytest.fail(miss_text(miss, result, _trace_path(item)), pytrace=False)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """A test that is run again explores again."""
    if _DONE in item.stash:
        del item.stash[_DONE]


def _trace_path(item: pytest.Item) -> Path:
    """Where the trace of a test goes: named after it, so that the next run puts it into the same place."""
    plain = re.sub(r"::|[/\[]", "-", item.nodeid).replace("]", "")
    name = re.sub(r"[^\w.-]+", "-", plain)[:120]
    if name != plain:
        # Parameters that differ only in what no file name holds, or far behind, still have traces of their own.
        name += f"-{hashlib.sha256(item.nodeid.encode()).hexdigest()[:12]}"
    folder = item.config.getoption("vmemmap_traces")
    if folder is None:
        request = cast("pytest.FixtureRequest", getattr(item, "_request"))  # noqa: B009
        factory = cast("pytest.TempPathFactory", request.getfixturevalue("tmp_path_factory"))
        folder = factory.mktemp("vmemmap")
    return Path(folder) / f"{name}.json"


@pytest.fixture
def vmemmap_result(request: pytest.FixtureRequest) -> Result:
    """The `vmemmap.Result` of the exploration that the mark ``vmemmap_explore`` asks for."""
    return _explored(request.node)[0]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What passed as safe and is not plainly so is said in the words of its verdict; with ``-v`` every verdict and
    its scope.
    """
    lines: list[str] = []
    for report in terminalreporter.stats.get("passed", ()):
        said: Mapping[str, object] = dict(getattr(report, "user_properties", ()))
        if report.when != "call" or _VERDICT not in said:
            continue
        if terminalreporter.verbosity > 0:
            lines.append(f"{report.nodeid}: {said[_VERDICT]} [{said[_SCOPE]}]")
        elif said[_EXPECTED] == "safe" and said[_VERDICT] != "safe":
            lines.append(f"{report.nodeid}: {said[_VERDICT]}")
    if lines:
        terminalreporter.section("vmemmap")
        for line in lines:
            terminalreporter.line(line)


# ---- machines
# ----------------------------------------------------------------------------------------------------------


def _machine(marks: list[pytest.Mark], folder: Path) -> tuple[Machine, bool]:
    """A machine of all marks together, of which a nearer one overrides a farther, and whether it is checked at rest.
    The path of an image is relative to the `folder` of the test.

    Raises:
        SpecError: A keyword that there is not, or a wrong value.
    """
    from inspect import signature

    from . import _core
    from .machine.machine import Machine

    keywords: dict[str, Any] = {}
    for mark in reversed(marks):
        if mark.args:
            raise SpecError(f"{mark.args[0]!r} has no keyword: it takes keywords only, like granule='64K'")
        keywords |= mark.kwargs
    at_rest = keywords.pop("at_rest", True)
    if not isinstance(at_rest, bool):
        raise SpecError(f"at_rest is {at_rest!r}: expected True or False")
    image = keywords.pop("image", None)
    made: Callable[..., Machine] = Machine
    if image is not None:
        if not isinstance(image, (str, Path)):
            raise SpecError(f"image is {image!r}: expected the path of a table image or a vmcore")
        made = partial(Machine.load, folder / image)
    own = [name for name, parameter in signature(made).parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
    known = ["at_rest", "image", *own, *(row.replace("-", "_") for row in _core.policies())]
    for name in keywords:
        if name not in known:
            raise SpecError(f"{name!r} is no keyword: expected one of {', '.join(known)}")
    return made(**keywords), at_rest


@pytest.fixture
def vmemmap_machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A `vmemmap.Machine`, configured by the mark ``vmemmap_machine``. Invariants that are broken when the test is
    over, or that the machine saw broken before (with ``checked=True`` at every access), are an error of the test;
    ``at_rest=False`` leaves that out.
    """
    try:
        machine, at_rest = _machine(list(request.node.iter_markers(MACHINE)), request.path.parent)
    except (VmemmapError, OSError) as error:
        raise _refusal(MACHINE, error) from None
    yield machine
    if not at_rest:
        return
    from .lab.asked import order

    seen, left = machine.violations, machine.check()
    if seen or left:
        # The message of what was seen on the way begins with its invariant, and names CPU and function.
        lines = [one.message for one in seen]
        lines += [
            f"{one.invariant}{'' if one.address is None else f' at {one.address:#x}'}: {one.message}" for one in left
        ]
        numbers = sorted({one.invariant for one in (*seen, *left)}, key=order)
        more = [f"and {len(lines) - MOST_LISTED} more"] if len(lines) > MOST_LISTED else []
        listed = [f"the test leaves {' '.join(numbers)} violated in {machine!r}", *lines[:MOST_LISTED], *more]
        pytest.fail("\n".join(listed), pytrace=False)
