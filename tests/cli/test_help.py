"""What a person is told: help with examples that can be typed, what was meant, what version this is, how far it is."""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

import vmemmap
from vmemmap import _core
from vmemmap.cli import _progress, main
from vmemmap.cli import vmemmap as commands
from vmemmap.cli._reference import Entry, entries, manual, markdown

ENTRIES = list(entries(commands))
LEAVES = [entry for entry in ENTRIES if "COMMAND" not in entry.usage]


def examples(entry: Entry) -> list[str]:
    found = [text.splitlines()[1:] for text, verbatim in entry.paragraphs if verbatim and text.startswith("Example")]
    return [line.strip() for lines in found for line in lines if line.strip().startswith("vmemmap ")]


def parsed(line: str) -> None:
    """As click would take it, without running it."""
    words = shlex.split(line.split(" > ")[0].split(" | ")[0], comments=True)[1:]
    command: click.Command = commands
    ctx = click.Context(commands, info_name="vmemmap")
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(ctx, words)
        assert found is not None and name is not None
        command = found
        ctx = click.Context(command, info_name=name, parent=ctx)
    parser = command.make_parser(ctx)
    parser.parse_args(list(words))


@pytest.mark.parametrize("entry", LEAVES, ids=lambda entry: entry.name)
def test_every_command_has_an_example_that_can_be_typed(entry: Entry) -> None:
    lines = examples(entry)
    assert lines, f"{entry.name} --help shows no example"
    assert any(line.startswith(entry.name) for line in lines)
    for line in lines:
        parsed(line)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["exlpore", "R6"], "no command 'exlpore': did you mean explore?"),
        (["explore", "R66"], "no scenario 'R66': did you mean R6, "),
        (["explore", "r06_ptdump_vs_hotremove"], "did you mean r06_ptdump_vs_hot_remove"),
        (["explore", "R6", "--variant", "mmaponly"], "did you mean mmap-only"),
        (["explore", "R6", "--set", "updat=bbm"], "did you mean update?"),
        (["explore", "R6", "--set", "update=bmb"], "did you mean bbm"),
        (["explore", "R6", "--varriant", "x"], "--variant"),
        (["explore"], "Missing argument 'SCENARIO'. Such as: vmemmap explore R6"),
        (["diff", "a.npz"], "Such as: vmemmap diff "),
        (["check", "a.npz", "b.npz"], "Such as: vmemmap check "),
        (["ptdump", "--machine", "granul=4K"], "did you mean granule?"),
    ],
)
def test_what_was_meant_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    answer = capsys.readouterr()
    assert answer.out == "" and len(answer.err.splitlines()) == 1
    assert said in answer.err


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda m: m.hugetlb["2M"].allocate(pfns=[0x40001]), "hugetlb_alloc of 2M (PFN 0x40001): EINVAL: no page"),
        (lambda m: m.hugetlb["2M"].free(pfns=[0x40200]), "hugetlb_free of 2M (PFN 0x40200): EBUSY: no such page"),
        (lambda m: m.hugetlb["2M"].reserve(3), "hugetlb_reserve of 2M (delta 3): ENOMEM: not so many free pages"),
        (lambda m: m.hugetlb["1G"].allocate(), "hugetlb_alloc of 1G: ENOMEM: no free memory holds a page"),
        (lambda m: m.memory.add(start=0x140000000, size="100M"), "100M at 0x140000000: EINVAL: not a multiple of"),
        (lambda m: m.memory.remove(m.memory.blocks[0]), "memory_remove of 128M at 0x40000000: EBUSY: a block is"),
    ],
)
def test_a_refusal_says_what_was_asked_which_errno_and_why(
    what: Callable[[vmemmap.Machine], object], said: str
) -> None:
    machine = vmemmap.Machine(boot_memory="256M", hotplug_memory="256M")
    with pytest.raises(vmemmap.KernelError) as refused:
        what(machine)
    assert said in str(refused.value)


def test_version_names_core_and_extras() -> None:
    answer = subprocess.run([sys.executable, "-m", "vmemmap", "--version"], capture_output=True, text=True, check=True)
    first, core, features = answer.stdout.splitlines()
    assert first == f"vmemmap {vmemmap.__version__}"
    assert core.startswith(f"core {_core.VERSION}, {_core.BUILD_PROFILE} build")
    assert features.startswith("kernels 2021, 6.1,") and "arrow yes" in features


def test_manual_and_reference_have_every_option_of_every_command() -> None:
    man, page = manual(commands).replace("\\-", "-"), markdown(commands)
    for entry in ENTRIES:
        assert f"## {entry.name}\n" in page and f".B {entry.usage}\n" in man
        for option, _ in entry.options:
            assert f"`{option}`".replace("|", "\\|") in page and f".B {option}\n" in man
    if shutil.which("man") and shutil.which("groff"):
        shown = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww"], input=manual(commands), capture_output=True, text=True
        )
        assert shown.returncode == 0 and "warning" not in shown.stderr, shown.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("vmemmap expl", "explore"),
        ("vmemmap explore r0", "r06_ptdump_vs_hot_remove"),
        ("vmemmap explore R6 --variant mm", "mmap-only"),
        ("vmemmap stress R6 --set upd", "update="),
        ("vmemmap explore R6 --set update=b", "update=bbm"),
        ("vmemmap compare R33 --policy upd", "update"),
        ("vmemmap compare R3 --only C-b", "C-base-pages"),
        ("vmemmap compare R33 --policy update --only update=b", "update=bbm"),
        ("vmemmap compare R3 --machine arm", "arm64"),
        ("vmemmap compare R6 --variant mm", "mmap-only"),
        ("vmemmap litmus x.litmus --memory v", "views"),
        ("vmemmap list r0", "r06_ptdump_vs_hot_remove"),
    ],
)
def test_the_shell_completes_what_is_typed(
    words: str, offered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_VMEMMAP_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        main([])
    assert f"plain,{offered}" in capsys.readouterr().out.splitlines()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_work_shows_its_rate_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(_progress, "AFTER_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    with _progress.bar("stressing R6", 10.0, "operations") as tick:
        assert tick is not None
        tick(5.0, 1234, "2 violations")
    with _progress.bar("comparing", 1.0, "choices") as tick:
        assert tick is not None
        tick(0.5, 3, "of 6")
    text = terminal.getvalue()
    assert "3 of 6 choices" in text and "choices/s" in text
    assert "stressing R6" in text and "1,234 operations" in text and "operations/s" in text and "2 violations" in text


def test_nothing_is_shown_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with _progress.bar("x", 1.0, "y") as tick, _progress.waiting("z"):
        assert tick is None
    assert capsys.readouterr().err == ""
