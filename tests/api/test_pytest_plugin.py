"""The pytest plugin as the tests of another project meet it: inner sessions with every warning an error."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

# What an inner session in this process would otherwise import, and pytester take out of `sys.modules` again.
import vmemmap
import vmemmap.lab.expectation  # noqa: F401
import vmemmap.report.miss  # noqa: F401
import vmemmap.report.replay  # noqa: F401
from vmemmap.cli import main
from vmemmap.lab.scenario import registry

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = any(found.value == "vmemmap.pytest_plugin" for found in entry_points(group="pytest11"))
# Hypothesis' plugin would load Hypothesis anew in each inner session, which takes longer than everything else here.
STRICT = ["--strict-markers", "--strict-config", "-W", "error", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
OPTIONS = STRICT if INSTALLED else [*STRICT, "-p", "vmemmap.pytest_plugin"]

IMPORTS = "import pytest\nimport vmemmap\nfrom vmemmap.lab.scenario import find\n"

registry()

Session = Callable[..., pytest.RunResult]


@pytest.fixture
def session(pytester: pytest.Pytester) -> Session:
    """An inner session over the text of a test file, with more options."""

    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(IMPORTS + text)
        return pytester.runpytest_inprocess(*OPTIONS, *options)

    return run


def explored(arguments: str, body: str = "pass", parameters: str = "") -> str:
    return f"@pytest.mark.vmemmap_explore({arguments})\ndef test_race({parameters}):\n    {body}\n"


def one_line(result: pytest.RunResult, *words: str) -> None:
    """The test has one error, in one line that says this; nothing ran into a traceback."""
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    section = re.search(r"ERROR at setup of \S+ _+\n(.*?)\n=", text, re.S)
    assert section is not None, text
    assert len(section[1].splitlines()) == 1, text
    for word in words:
        assert word in section[1]


# ---- what is expected and found
# ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "'R6'",
        "'r06_ptdump_vs_hot_remove', variant='kernel', expect='safe'",
        "'R6', variant='kernel', invariant=('I18', 'I19')",
        "'R6', variant='mmap-only'",
        "'R6', variant='mmap-only', expect='violated'",
        "'R6', variant='mmap-only', expect='violated', invariant=['I1', 'I18']",
        "'R6', variant='kernel', policies={'walker': 'mmap-only'}, expect='violated', invariant='I1'",
        "'R6', variant='unlocked', strategy='pct', depth=3, seed=1, budget=2000, expect='violated'",
        "find('R6'), variant=find('R6').variant('unlocked')",
    ],
)
def test_what_is_expected_and_found_passes(session: Session, arguments: str) -> None:
    session(explored(arguments)).assert_outcomes(passed=1)


def test_the_body_looks_closer_at_the_result(session: Session) -> None:
    text = """
@pytest.fixture
def words(vmemmap_result):
    return vmemmap_result.words

@pytest.mark.vmemmap_explore("R6", variant="mmap-only")
def test_race(words, vmemmap_result):
    assert isinstance(vmemmap_result, vmemmap.Result)
    assert (vmemmap_result.context_switches, vmemmap_result.words) == (2, words)

@pytest.mark.vmemmap_explore("R6")
def test_body_fails(vmemmap_result):
    assert vmemmap_result.states == 0
"""
    result = session(text)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*vmemmap_result.states == 0*"])


def test_an_unexpected_fall_is_told_with_its_trace_and_the_command_that_replays_it(
    session: Session, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    result = session(explored("'R6', variant='mmap-only', expect='safe'"), "--vmemmap-traces", "found here")
    result.assert_outcomes(failed=1)
    shown = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "expected safe, found I1 violated, I5 I6 held, I18 violated",
            "r06_ptdump_vs_hot_remove mmap-only: I1 violated, I5 I6 held, I18 violated [[]4K pages, *",
            "*, exhaustive",
            "*identical: I1 is violated again in *",
            "*CPU0 ptdump *| CPU1 hot remove",
            "  freed by hot remove, in step *",
            "step through it: vmemmap replay *",
        ]
    )
    assert "Traceback" not in shown
    command = shlex.split(shown.partition("step through it: ")[2].splitlines()[0])
    assert Path(command[2]) == pytester.path / "found here" / f"{Path(command[2]).stem}.json"
    capsys.readouterr()
    assert main(command[1:]) == 1
    replayed = capsys.readouterr().out
    assert replayed.strip() in shown, "the failure shows what `vmemmap replay` prints"


def test_without_a_directory_of_its_own_the_trace_lies_beside_tmp_path(
    session: Session, pytester: pytest.Pytester
) -> None:
    result = session(explored("'R6', variant='mmap-only', expect='safe'"), "--basetemp", "base")
    (trace,) = (pytester.path / "base").rglob("*.json")
    result.stdout.fnmatch_lines([f"trace: {trace}"])


def test_tests_whose_names_no_file_can_have_keep_their_traces_apart(
    session: Session, pytester: pytest.Pytester
) -> None:
    parameters = "@pytest.mark.parametrize('x', ['<', '>', '" + "x" * 300 + "'])\n"
    session(parameters + explored("'R6', variant='mmap-only', expect='safe'", parameters="x"), "--vmemmap-traces", ".")
    assert len(list(pytester.path.glob("*.json"))) == 3


def test_another_fall_than_the_one_expected_fails(session: Session) -> None:
    result = session(explored("'R6', variant='mmap-only', expect='violated', invariant=['I1', 'I6']"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["expected I1 I6 violated, found I1 violated, I5 I6 held, I18 violated", "*I1 is violated again*"]
    )


def test_a_race_that_is_gone_fails(session: Session) -> None:
    result = session(explored("'R6', variant='kernel', expect='violated', invariant='I1'"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["expected I1 violated, found safe", "r06_ptdump_vs_hot_remove kernel: safe [[]4K pages*"]
    )
    result.stdout.no_fnmatch_line("trace:*")


@pytest.mark.parametrize("arguments", ["'R6', budget=3", "'R6', variant='mmap-only', budget=1"])
def test_undecided_is_neither_safe_nor_violated(session: Session, arguments: str) -> None:
    result = session(explored(arguments))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["expected *, found inconclusive: no violation of I1 I5 I6 in * executions", "undecided: budget used up; *"]
    )


def test_a_column_that_fell_beside_the_judged_ones_is_said_though_the_test_passes(session: Session) -> None:
    result = session(
        explored("'R32', variant='64k-store-6.12', expect='safe'") + explored("'R6'").replace("race", "plain")
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*= vmemmap =*", "*::test_race: I1 I5 I6 held, I19 violated"])
    result.stdout.no_fnmatch_line("*::test_plain:*")


def test_safe_may_ask_that_a_column_holds_which_the_scenario_does_not_judge(session: Session) -> None:
    result = session(explored("'R32', variant='64k-store-6.12', expect='safe', invariant='I19'"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["expected safe and I19 held, found I19 violated, I1 I5 I6 held", "*I19 is violated again*", "trace: *"]
    )


def test_every_verdict_has_its_scope_beside_it_when_asked_and_in_the_xml(
    session: Session, pytester: pytest.Pytester
) -> None:
    result = session(explored("'R6'"), "-v", "--junit-xml", "found.xml")
    result.stdout.fnmatch_lines(["*::test_race: safe [[]4K pages, *actors ptdump*"])
    assert '<property name="vmemmap_verdict" value="safe"' in (pytester.path / "found.xml").read_text()


# ---- several explorations, own scenarios
# -------------------------------------------------------------------------------


def test_several_variants_or_marks_are_tests_of_their_own(session: Session) -> None:
    text = """
@pytest.mark.vmemmap_explore("R25", variant="*")
def test_all(vmemmap_result):
    assert vmemmap_result.exhaustive

@pytest.mark.vmemmap_explore("R6", variant="kernel")
@pytest.mark.vmemmap_explore("R6", variant="mmap-only")
@pytest.mark.parametrize("x", [1, 2])
def test_stacked(x): ...

@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.vmemmap_explore("R6"))])
def test_param(x, request):
    assert ("vmemmap_verdict", "safe") in request.node.user_properties or x == 1

@pytest.mark.vmemmap_explore("R6", variant=["kernel", "kernel-6.12"])
class TestClass:
    def test_inherited(self, vmemmap_result):
        assert vmemmap_result.kernel in ("6.1", "6.12")

    @pytest.mark.vmemmap_explore("R25", variant="task")
    def test_nearer(self, vmemmap_result):
        assert vmemmap_result.variant == "task"
"""
    result = session(text, "-v")
    result.assert_outcomes(passed=12)
    for name in (
        "test_all[R25-in-interrupt]",
        "test_stacked[R6-kernel-2]",
        "test_stacked[R6-mmap-only-1]",
        "test_inherited[R6-kernel-6.12]",
    ):
        assert f"::{name} PASSED" in result.stdout.str()


OWN = """
from vmemmap.lab.neighbours import lone_block

def dumped(m):
    block = lone_block(m, "4K")
    return [vmemmap.Actor("ptdump", [m.ptdump(block)]), vmemmap.Actor("hot remove", [m.memory.remove(block)])]

"""


def test_a_function_of_a_stage_is_explored(session: Session) -> None:
    again = explored("scenario=dumped, policies={'walker': 'mmap-only'}, expect='violated', invariant='I1'").replace(
        "race", "unlocked"
    )
    session(OWN + explored("scenario=dumped") + again).assert_outcomes(passed=2)


def test_a_method_of_unittest_explores_one_variant(session: Session) -> None:
    text = """
import unittest

class Races(unittest.TestCase):
    @pytest.mark.vmemmap_explore("R6", variant="mmap-only", expect="safe")
    def test_one(self): ...

    @pytest.mark.vmemmap_explore("R6", variant="*")
    def test_all(self): ...
"""
    result = session(text)
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["*one test explores one variant*", "expected safe, found I1 violated*"])


def test_the_example_of_the_documentation_runs_as_it_stands(pytester: pytest.Pytester) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "docs/pytest.md").read_text(), re.S)
    assert example is not None
    pytester.makepyfile(test_races=example[1])
    pytester.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=10)
    pytester.makepyfile(test_races=example[1].replace("budget=5000", 'policies={"walker": "mmap-only"}'))
    result = pytester.runpytest_inprocess(*OPTIONS, "-k", "my_driver")
    result.assert_outcomes(failed=1, deselected=9)
    result.stdout.fnmatch_lines(["expected safe, found I1 violated, I2 I3 I4 I5 I6 I8 I28 held, I18 violated"])


# ---- wrong use
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("'R999'", ["no scenario 'R999'", "vmemmap list"]),
        ("'R6', variant='kernl'", ["no variant 'kernl'", "mmap-only"]),
        ("'R6', variant=['kernel', 3]", ["variant is 3"]),
        ("'R6', variant=[]", ["variant", "kernel-6.12"]),
        ("'R6', varient='kernel'", ["'varient'", "variant"]),
        ("", ["'scenario'"]),
        ("'R6', 'kernel'", ["too many positional arguments"]),
        ("'R6', expect='broken'", ["'broken'", "safe or violated"]),
        ("'R6', invariant='I99'", ["'I99'", "I1 to I34"]),
        ("'R6', invariant=6", ["invariant is 6"]),
        ("'R6', budget='soon'", ["budget is 'soon'"]),
        ("'R6', strategy='lucky'", ["strategy is 'lucky'", "pct"]),
        ("'R6', strategy='random'", ["never shows kernel safe"]),
        ("'R6', depth='3', strategy='pct', expect='violated'", ["depth is '3'"]),
        ("'R6', seed=-1", ["seed is -1"]),
        ("'R6', policies={'walkr': 'none'}", ["'walkr'", "walker"]),
        ("'R6', policies={'walker': 'on foot'}", ["walker is 'on foot'"]),
        ("'R6', policies='walker=none'", ["policies is 'walker=none'"]),
        ("3", ["3 is no scenario"]),
        ("lambda m: m.nothing()", ["AttributeError"]),
    ],
)
def test_a_wrong_mark_is_an_error_of_its_test_in_one_line(session: Session, arguments: str, words: list[str]) -> None:
    one_line(session(explored(arguments)), "vmemmap_explore: ", *words)


def test_a_result_without_an_exploration_is_refused(session: Session) -> None:
    one_line(session("def test_nothing(vmemmap_result): ..."), "without the mark vmemmap_explore")


def test_a_wrong_mark_does_not_take_the_other_tests_of_its_file_with_it(session: Session) -> None:
    session(explored("'R6', variant='*', budget='soon'") + "def test_other(): ...").assert_outcomes(passed=1, errors=1)


@pytest.mark.parametrize(
    "options", [["--vmemmap-budget", "soon"], ["-o", "vmemmap_budget=0s"], ["--vmemmap-traces", "taken"]], ids=" ".join
)
def test_a_wrong_option_ends_the_session_before_it_begins(
    session: Session, pytester: pytest.Pytester, options: list[str]
) -> None:
    (pytester.path / "taken").touch()
    result = session(explored("'R6'"), *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line]
    assert line.startswith("ERROR: ")
    assert "vmemmap" in line


# ---- budgets
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "options", "decided"),
    [
        ("", ["-o", "vmemmap_budget=3"], False),
        (", budget='30s'", ["-o", "vmemmap_budget=3"], True),
        (", budget='30s'", ["--vmemmap-budget", "3"], False),
        (", budget=3", ["--vmemmap-budget", "30s"], True),
        (", budget=3", ["-o", "vmemmap_budget=30s"], False),
    ],
)
def test_the_command_line_overrides_the_mark_and_the_mark_the_setting(
    session: Session, mark: str, options: list[str], decided: bool
) -> None:
    session(explored(f"'R6'{mark}"), *options).assert_outcomes(passed=decided, failed=not decided)


# ---- machines
# ----------------------------------------------------------------------------------------------------------


def test_a_machine_is_configured_by_marks_of_which_the_nearer_overrides(session: Session) -> None:
    text = """
pytestmark = pytest.mark.vmemmap_machine(granule="64K", boot_memory="1G", hotplug_memory="4G")

def test_far(vmemmap_machine):
    vmemmap_machine.memory.add("512M").online()
    assert (vmemmap_machine.granule, vmemmap_machine.hvo) == (65536, True)

@pytest.mark.vmemmap_machine(granule="4K", hvo=False, free_order="free-then-invalidate")
def test_near(vmemmap_machine):
    vmemmap_machine.memory.add("128M")
    assert (vmemmap_machine.granule, vmemmap_machine.hvo) == (4096, False)
    assert vmemmap_machine.policies["free-order"] == "free-then-invalidate"
"""
    session(text).assert_outcomes(passed=2)


def broken(keywords: str) -> str:
    return f"""
@pytest.mark.vmemmap_machine(boot_memory="1G", {keywords})
def test_machine(vmemmap_machine):
    pool = vmemmap_machine.hugetlb["2M"]
    pool.nr_hugepages = 2
    pool.put(pool.get())
    pool.nr_hugepages = 0
"""


def test_a_machine_left_broken_is_an_error_of_the_test(session: Session) -> None:
    result = session(broken("mutant='executable'"))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_machine*",
            "the test leaves I31 violated in <Machine 4K*",
            "I31 at 0x*: writable and executable",
        ]
    )
    result.stdout.fnmatch_lines(["and * more"])


def test_what_a_machine_saw_on_the_way_is_an_error_too(session: Session) -> None:
    """A table published before it was filled: at rest, nothing is left of it."""
    result = session(broken("mutant='publish-early', checked=True"))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["the test leaves I21 violated*", "I21 table published early: * in hugetlb_vmemmap_optimize *"]
    )


def test_a_machine_that_is_to_break_is_not_checked(session: Session) -> None:
    session(broken("mutant='executable', at_rest=False")).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("granul='4K'", ["'granul' is no keyword", "granule", "at_rest", "free_order"]),
        ("granule='5K'", ["granule is '5K'"]),
        ("update='bmm'", ["update is 'bmm'", "bbm"]),
        ("at_rest='no'", ["at_rest is 'no'"]),
        ("'64K'", ["'64K' has no keyword"]),
        ("va_bits=52, kernel='6.1'", ["va_bits is 52"]),
    ],
)
def test_a_machine_that_cannot_be_is_refused_in_one_line(session: Session, arguments: str, words: list[str]) -> None:
    text = f"@pytest.mark.vmemmap_machine({arguments})\ndef test_machine(vmemmap_machine): ...\n"
    one_line(session(text), "vmemmap_machine: ", *words)


# ---- the session around it
# ---------------------------------------------------------------------------------------------


def test_loading_the_plugin_loads_nothing_that_only_an_exploration_needs() -> None:
    late = ["numpy", "click", "rich", "jinja2", "vmemmap.lab.expectation", "vmemmap.report", "vmemmap.scenarios"]
    program = f"import sys, vmemmap.pytest_plugin; print([m for m in {late} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]"


def test_a_function_alone_is_a_scenario_unless_it_is_a_test(session: Session) -> None:
    text = OWN + explored("dumped") + "@pytest.mark.vmemmap_explore('R6')\n@pytest.mark.skip\ndef test_skipped(): ...\n"
    session(text).assert_outcomes(passed=1, skipped=1)
    one_line(session("@pytest.mark.vmemmap_explore\ndef test_race(): ...\n"), "'scenario'")


def test_a_seed_for_all_that_draw(session: Session) -> None:
    arguments = "'R6', variant='unlocked', strategy='pct', seed=1, budget=500, expect='violated'"
    text = explored(arguments, "assert vmemmap_result.seed == 77", "vmemmap_result") + (
        "@pytest.mark.vmemmap_explore('R6')\ndef test_exhaustive(): ...\n"
    )
    session(text, "--vmemmap-seed", "77").assert_outcomes(passed=2)
    assert session(text, "--vmemmap-seed", "-1").ret == pytest.ExitCode.USAGE_ERROR


def test_a_machine_from_an_image_beside_the_test(session: Session, pytester: pytest.Pytester) -> None:
    for suffix in (".npz", ".json"):
        (pytester.path / f"B{suffix}").write_bytes((ROOT / f"tests/captures/6.1-4k/B{suffix}").read_bytes())
    text = (
        "@pytest.mark.vmemmap_machine(image='B.npz', kernel='6.12', update='swap')\n"
        "def test_it(vmemmap_machine):\n"
        "    assert (vmemmap_machine.kernel, vmemmap_machine.policies['update']) == ('6.12', 'swap')\n"
    )
    session(text).assert_outcomes(passed=1)
    one_line(session(text.replace("B.npz", "C.npz")), "vmemmap_machine: ", "C.npz")
    one_line(session(text.replace("kernel='6.12'", "boot_memory='1G'")), "'boot_memory' is no keyword")


def test_another_project_uses_it_under_xdist(pytester: pytest.Pytester, capfd: pytest.CaptureFixture[str]) -> None:
    """A project of its own: configuration, a package with a scenario, tests in a folder, two workers."""
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\ntestpaths = ["tests"]\nvmemmap_budget = "30s"\n')
    (pytester.path / "driver").mkdir()
    (pytester.path / "driver/__init__.py").write_text("import vmemmap\n" + OWN)
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests/test_driver.py").write_text(
        "import pytest\nfrom driver import dumped\n"
        "pytestmark = pytest.mark.vmemmap_explore(dumped)\n"
        "def test_safe(vmemmap_result): assert vmemmap_result.exhaustive\n"
        "@pytest.mark.vmemmap_explore(dumped, policies={'walker': 'mmap-only'})\n"
        "def test_falls(): ...\n"
        "@pytest.mark.vmemmap_explore('R6', variant='*')\n"
        "def test_listed(): ...\n"
    )
    result = pytester.runpytest_subprocess(*OPTIONS, "-n", "2", "--vmemmap-traces", "kept", "-o", "pythonpath=.")
    result.assert_outcomes(passed=8, failed=1)
    command = re.search(r"step through it: vmemmap (replay .+)", result.stdout.str())
    assert command is not None, "the command that replays it"
    (kept,) = (pytester.path / "kept").iterdir()
    capfd.readouterr()
    assert main(shlex.split(command[1])) == 1 and str(kept) in command[1]
    assert "I1 is violated again" in capfd.readouterr().out


def test_an_installed_package_brings_the_plugin_with_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the entry point of the project file alone, as any other project's session would load it."""
    entry = re.search(r"\[project\.entry-points\.pytest11\]\n(.+)\n", (ROOT / "pyproject.toml").read_text())
    assert entry is not None
    value = entry[1].replace('"', "")
    package = pytester.mkdir("site")
    facts = package / "vmemmap-0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: vmemmap\nVersion: 0\n")
    (facts / "RECORD").write_text("vmemmap/__init__.py,,\nvmemmap/pytest_plugin.py,,\n")
    (facts / "entry_points.txt").write_text(f"[pytest11]\n{value}\n")
    found = Path(vmemmap.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{package}:{found}")
    pytester.makepyfile(IMPORTS + explored("'R6'"))
    result = pytester.runpytest_subprocess(*STRICT)
    result.assert_outcomes(passed=1)
    assert not result.stderr.str()
    before = f"import sys, vmemmap, pytest; sys.exit(pytest.main({STRICT}))"
    assert pytester.run(sys.executable, "-W", "error", "-c", before).ret == 0, "the package is imported before pytest"
    off = pytester.runpytest_subprocess(*STRICT, "-p", "no:vmemmap")
    off.assert_outcomes(errors=1)
    off.stdout.fnmatch_lines(["*'vmemmap_explore' not found in `markers`*"])


def test_ctrl_c_ends_the_session_within_a_second(pytester: pytest.Pytester) -> None:
    """While a search runs that would sample for a minute without finding anything."""
    begun = OWN.replace("    block = lone", '    print("begun", flush=True)\n    block = lone')
    race = explored("scenario=dumped, strategy='random', budget='60s', expect='violated'")
    pytester.makepyfile(f"{IMPORTS}{begun}{race}")
    command = [sys.executable, "-m", "pytest", "-s", *OPTIONS]
    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("begun" in line for line in process.stdout)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        shown = process.stdout.read()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, shown
    assert time.monotonic() - sent < 5, "a second, and more where the machine is busy"
    assert "KeyboardInterrupt" in shown
