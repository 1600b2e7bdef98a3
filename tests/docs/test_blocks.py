"""Every command and every Python block of README and docs/ is executed, and what stands below it is what comes out.

A fence ``console`` holds commands (``$ …``) and what each prints, ``python`` a program; the blocks of one document
share a folder and their names. A ``text`` fence directly behind a ``python`` one is what that prints. In what is
expected ``…`` stands for any text within a line (seconds, a digest), and for any lines where it is alone in one. A
command without anything below it may print what it likes. A ``toml`` fence that begins with ``# NAME.toml`` is that
file in the folder. ``<!-- not run: REASON -->`` in front of a fence leaves it out, and the reason is printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from markdown_it import MarkdownIt

from vmemmap.cli import vmemmap as commands_of_vmemmap

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "image"))
import vmcore_builder as builder  # noqa: E402 (its folder is no package)

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
CAPTURE = ROOT / "tests/captures/6.1-4k/A"
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*$")
#: Languages of fences that are neither run nor compared.
INERT = {"text", "asm", "json", "toml"}
SECONDS = 600


@dataclass
class Block:
    """One fence: its language and text, where it begins, why it is not run, and what a program is to print."""

    language: str
    text: str
    line: int
    not_run: str | None = None
    prints: str | None = None


@dataclass
class Count:
    """Blocks run so far, and those left out with their reasons."""

    run: int = 0
    blocks: int = 0
    left_out: list[str] = field(default_factory=list[str])


TOTAL = Count()


def blocks_of(document: Path) -> Iterator[Block]:
    reason: str | None = None
    previous: Block | None = None
    for token in MarkdownIt("commonmark").enable("table").parse(document.read_text(encoding="utf-8")):
        line = (token.map or [0])[0] + 1
        if token.type == "html_block":
            found = NOT_RUN.match(token.content)
            reason = found[1] if found else None
        elif token.type == "code_block":
            assert not re.search(r"^(\$ |>>> |vmemmap |make )", token.content, re.MULTILINE), (
                f"{document.name}:{line}: commands go into a fence"
            )
        elif token.type == "fence":
            assert token.info in INERT | {"console", "python"}, f"{document.name}:{line}: a fence says its language"
            block = Block(token.info, token.content, line, reason)
            if block.language == "text" and previous and previous.language == "python":
                previous.prints = block.text
            previous, reason = block, None
            yield block
        elif token.type not in {"inline", "paragraph_close"}:
            previous = None


def matches(expected: str, found: str) -> bool:
    pattern = ""
    for line in expected.rstrip("\n").split("\n"):
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part.rstrip() if last else part) for part, last in parts(line)) + r"[ \t]*\n"
    return re.fullmatch(pattern, found.rstrip("\n") + "\n") is not None


def parts(line: str) -> list[tuple[str, bool]]:
    split = line.split("…")
    return [(part, number == len(split) - 1) for number, part in enumerate(split)]


def commands(text: str) -> Iterator[tuple[str, str]]:
    for piece in re.split(r"(?m)^\$ ", text)[1:]:
        command, _, output = piece.partition("\n")
        yield command, output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documents name: two captures, a text, a vmcore, raw memory; and commands by their names."""
    path = tmp_path_factory.mktemp("documents")
    for name in ("A", "B"):
        for ending in ("npz", "json"):
            shutil.copy(CAPTURE.with_name(f"{name}.{ending}"), path)
    shutil.copy(CAPTURE.with_name("A.ptdump.txt"), path / "kernel_page_tables.txt")
    (path / "tests").mkdir()
    (path / "tests" / "captures").symlink_to(ROOT / "tests" / "captures")
    capture = builder.load(CAPTURE)
    builder.write_elf(path / "vmcore", capture)
    builder.write_raw(path / "ram.bin", capture)
    (path / "bin").mkdir()
    vmemmap = path / "bin" / "vmemmap"
    # As an entry point is installed: worker processes import it again.
    guarded = "if __name__ == '__main__':\n    sys.exit(main())\n"
    vmemmap.write_text(f"#!{sys.executable}\nimport sys\nfrom vmemmap.cli import main\n{guarded}")
    vmemmap.chmod(0o755)
    return path


def run_command(command: str, output: str, folder: Path, where: str) -> None:
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode in {0, 1} and not done.stderr, (
        f"{where}: {command}: exit code {done.returncode}\n{done.stderr}{done.stdout[-2000:]}"
    )
    if output.strip():
        assert matches(output, done.stdout), f"{where}: {command} prints\n{done.stdout[:4000]}\ninstead of\n{output}"


def run_python(block: Block, names: dict[str, object], folder: Path, where: str) -> None:
    if "@pytest.mark" in block.text:
        (folder / "test_of_the_document.py").write_text(block.text)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0 and " passed" in done.stdout, f"{where}:\n{done.stdout[-3000:]}"
        return
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, where, "exec"), names)
    if block.prints is not None:
        assert matches(block.prints, printed.getvalue()), (
            f"{where} prints\n{printed.getvalue()}\ninstead of\n{block.prints}"
        )


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_blocks_do_what_they_say(document: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(document):
        where = f"{document.relative_to(ROOT)}:{block.line}"
        if block.language == "toml" and (named := re.match(r"# ([a-z]+\.toml)\n", block.text)):
            (folder / named[1]).write_text(block.text, encoding="utf-8")
        if block.language in INERT:
            continue
        TOTAL.blocks += 1
        if block.not_run:
            TOTAL.left_out.append(f"{where}: {block.not_run}")
            continue
        if block.language == "python":
            run_python(block, names, folder, where)
        else:
            for command, output in commands(block.text):
                run_command(command, output, folder, where)
        TOTAL.run += 1


def test_the_count_of_blocks() -> None:
    """The last test of the file: says how many there were."""
    print(
        f"blocks of documents executed: {TOTAL.run}/{TOTAL.blocks - len(TOTAL.left_out)}, left out: "
        f"{len(TOTAL.left_out)}",
        *TOTAL.left_out,
        sep="\n  ",
    )
    assert TOTAL.run + len(TOTAL.left_out) == TOTAL.blocks


def test_what_differs_is_noticed() -> None:
    assert matches("a … c\n…\nz\n", "a b c\nx\ny\nz\n") and matches("…\nz", "z\n") and matches("a\n…", "a\n")
    assert not any((matches("a\n", "b\n"), matches("a … c\n", "a b\n"), matches("a\nz\n", "a\nb\nz\n")))


#: In running text: `vmemmap SUBCOMMAND … --option`.
INLINE = re.compile(r"`vmemmap ([a-z]+)([^`]*)`")


def test_commands_within_sentences_exist() -> None:
    found = unknown = 0
    for document in DOCUMENTS:
        for name, rest in INLINE.findall(document.read_text(encoding="utf-8")):
            found += 1
            command = commands_of_vmemmap.get_command(click.Context(commands_of_vmemmap), name)
            known = {option for parameter in command.params for option in parameter.opts} if command else set[str]()
            missing = [option for option in re.findall(r"--[a-z][a-z-]*", rest) if option not in known]
            if command is None or missing:
                unknown += 1
                print(f"{document.relative_to(ROOT)}: vmemmap {name}{rest}: {missing or 'no such command'}")
    print(f"commands within sentences that exist: {found - unknown}/{found}")
    assert found > 20 and not unknown
