"""What SECURITY.md says of inputs from strangers, where no test of a format already does (`tests/image/test_hostile_*`,
`tests/cli/test_hostile_traces.py`, `tests/campaign`): how much memory each costs, where files are written, and that
what they say reaches a page as text."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import vmemmap
from vmemmap.lab.replay import MAX_BYTES as MOST_OF_A_TRACE

CAPTURES = Path(__file__).parent / "captures"

# ---- memory ----------------------------------------------------------------------------------------------------------

#: So many MiB of address space beyond what the process has are there for a call.
LIMITED = """
import resource, sys
import vmemmap
from pathlib import Path
from vmemmap import _core
from vmemmap.campaign import matrix, spec, store
from vmemmap.comparison import machine_file
from vmemmap.dumps import image
from vmemmap.lab import litmus
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + ({limit} << 20),) * 2)
path = Path(sys.argv[1])
def run(*arguments):
    from vmemmap import cli
    if cli.main([*arguments, str(path)]) == 2:
        raise vmemmap.SpecError("said in one line already")
try:
    {call}
    print("taken")
except vmemmap.VmemmapError as error:
    print("refused", error)
"""


def limited(path: Path, call: str, limit: int) -> str:
    text = LIMITED.format(limit=limit, call=call)
    answer = subprocess.run([sys.executable, "-c", text, str(path)], capture_output=True, text=True, timeout=100)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert len(answer.stdout.splitlines()) == 1, answer.stdout
    return answer.stdout


R6 = '[[matrix]]\nscenarios = ["R6"]\n'
MEBIBYTE = 1 << 20


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * (MEBIBYTE - 10),
        R6 + "policies = " + "{ a = " * 1000,
        R6 + "seeds = [" + "1," * (MEBIBYTE // 2 - 40) + "]",
        R6 + 'variants = ["' + "x" * (MEBIBYTE - 60) + '"]',
        R6 + "policies = { " + ", ".join(f"p{n} = ['a', 'b']" for n in range(40_000)) + " }",
        (R6 + 'strategies = ["random"]\nseeds = "0-1999"\n') * 60,
    ],
    ids=["nested", "tables", "seeds", "text", "policies", "jobs"],
)
def test_a_campaign_of_a_mebibyte_costs_little(text: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(text)
    assert path.stat().st_size <= MEBIBYTE
    # A hundred thousand jobs are the most there can be; some hundred bytes each.
    limited(path, "matrix.jobs_of(spec.load(path))", 300)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("spec.load(path)", "spec.toml"),
        ("vmemmap.replay(path)", "trace.json"),
        ("image.read_ptdump(path)", "dump.txt"),
        ("machine_file.load(path)", "machine.toml"),
        ("litmus.read_kinds(path)", "kinds.txt"),
        ("run('litmus')", "test.litmus"),
        ("run('oops')", "dmesg.txt"),
    ],
    ids=["campaign", "trace", "text", "machine file", "kinds", "litmus", "oops"],
)
def test_a_file_of_a_terabyte_is_refused_before_it_is_read(call: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(1 << 40)
    # What is read to find that out is no more than the kind of file may have, twice while pieces are put together.
    assert limited(path, call, 2100).startswith("refused")
    if name == "trace.json":
        assert f"larger than {MOST_OF_A_TRACE >> 20} MiB" in limited(path, call, 2100)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = vmemmap.explore("R6", variant="mmap-only", shorten=0).trace_file()
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    path.write_text(json.dumps(found))
    return path


@pytest.mark.parametrize("key", ["segments", "steps", "document"])
def test_a_trace_nested_or_repeated_costs_little(key: str, trace: Path, tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(trace.read_text())
    path = tmp_path / "other.json"
    path.write_text(json.dumps(document | {key: [document[key]] * 200}))
    assert limited(path, "vmemmap.replay(path)", 600).startswith("refused")
    path.write_text('{"format": 2, "' + key + '": ' + "[" * 100_000)
    assert limited(path, "vmemmap.replay(path)", 200).startswith("refused")


def test_a_trace_of_the_largest_machine_that_is_taken_costs_a_gibibyte(trace: Path, tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(trace.read_text())
    ram = {"boot": [[1 << 30, 64 << 30]], "hotplug": document["document"]["machine"]["hotplug"]}
    document["document"]["machine"].update(ram)
    path = tmp_path / "large.json"
    path.write_text(json.dumps(document))
    # Whether it fits is not the question here: it must not take the host.
    limited(path, "vmemmap.replay(path)", 1536)


# ---- files and the network -------------------------------------------------------------------------------------------

#: Tells each file that is opened to be written, made, renamed or removed, and each step towards another host.
WATCHED = """
import os, sys
folder, *arguments = sys.argv[1:]
changes = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
           "shutil.copyfile", "shutil.move", "shutil.rmtree", "sqlite3.connect"}
abroad = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
          "socket.gethostbyname", "socket.getnameinfo", "urllib.Request", "webbrowser.open"}
inside = (os.path.realpath(folder) + os.sep, "/dev/", "/proc/self/")
def watch(event, values):
    if event == "open":
        path, mode, flags = values
        if isinstance(path, int) or not (flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)):
            return
        paths = [path]
    elif event in changes:
        paths = [value for value in values[:2] if isinstance(value, (str, bytes)) and value != ":memory:"]
        if event == "sqlite3.connect":
            paths = [os.fsdecode(path).removeprefix("file:").partition("?")[0] for path in paths]
    elif event in abroad:
        # Between processes of one pool there may be a socket with a name in a folder.
        if not (event in ("socket.connect", "socket.bind") and isinstance(values[1], (str, bytes))):
            print("ABROAD", event, values, file=sys.stderr)
        return
    else:
        return
    for path in paths:
        real = os.path.realpath(os.fsdecode(path))
        if not (real + os.sep).startswith(inside):
            print("OUTSIDE", event, real, file=sys.stderr)
os.chdir(folder)
sys.dont_write_bytecode = True
sys.addaudithook(watch)
from vmemmap.cli import main
sys.exit(main(arguments))
"""

LITMUS = """AArch64 one
{ 0:X1=x; }
 P0 ;
 LDR W0,[X1] ;
exists (0:X0=1)
"""


def test_nothing_is_written_outside_the_folder_and_no_host_is_asked(trace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    image = folder / "B.npz"
    for suffix in (".npz", ".json"):
        shutil.copy(CAPTURES / "6.1-64k" / f"B{suffix}", image.with_suffix(suffix))
    document: dict[str, Any] = json.loads(trace.read_text())
    # Names that a file brings along are no paths.
    evil = "../../evil"
    (folder / "trace.json").write_text(json.dumps(document | {"scenario": evil, "variant": evil}))
    (folder / "own.toml").write_text(f'title = "{evil}"\n' + R6 + 'variants = ["mmap-only"]\nsplit = 2\n')
    (folder / "test.litmus").write_text(LITMUS)
    calls = [
        (["explore", "R6", "--variant", "mmap-only", "--trace-out", "t.json", "--html", "e.html"], (1,)),
        (["replay", "trace.json", "--format", "html", "--out", "r.html"], (0, 1, 2)),
        (["check", "B.npz", "--html", "c.html"], (0, 1)),
        (["diff", "B.npz", "B.npz", "--html", "d.html"], (0,)),
        (["stress", "R6", "--seconds", "0.1", "--snapshots", "s.jsonl"], (0,)),
        (["campaign", "run", "own.toml", "--workers", "1"], (0, 1)),
        (["campaign", "show", "own.toml", "--trace", "1"], (0, 2)),
        (["estimate", "--memory", "1T"], (0,)),
        # What changes nothing at all.
        (["host"], (0,)),
        (["host", "--json"], (0,)),
        (["litmus", "test.litmus"], (0,)),
        (["map", "B.npz"], (0,)),
        (["where", "B.npz", "0xfffffc0000200040"], (0,)),
        (["list", "--json"], (0,)),
    ]
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "TMPDIR": str(folder)}
    for arguments, codes in calls:
        answer = subprocess.run(
            [sys.executable, "-c", WATCHED, str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            env=environment,
        )
        assert answer.returncode in codes, (arguments, answer.stderr)
        assert not re.search("OUTSIDE|ABROAD", answer.stderr), (arguments, answer.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert not list(tmp_path.parent.glob("evil*"))


# ---- pages -----------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Its elements, and what stands in their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # What is data for the page's own script is none.
        self.tags.append("data" if ("type", "application/json") in attrs else tag)
        self.names.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


MARK = "<script>alert(1)</script>"
QUOTE = "a\"b'<img src=x onerror=alert(1)>"

OWN = f"""
import vmemmap
from vmemmap.lab.neighbours import lone_block

VARIANT = vmemmap.Variant({MARK!r}, "violated", ("I1",), {{"walker": "mmap-only"}})

@vmemmap.scenario(title={MARK!r}, sources=[{MARK!r}], judged=["I1"], variants=[VARIANT])
def own(m):
    block = lone_block(m, "4K")
    return [vmemmap.Actor({MARK!r}, [m.ptdump(block)]), vmemmap.Actor({QUOTE!r}, [m.memory.remove(block)])]
"""


def assert_text(page: str, *shown: str) -> None:
    """The marks stand there as text; no element and no attribute came of them."""
    found = Page(page)
    assert found.tags.count("script") <= 1 and "img" not in found.tags and "onerror" not in found.names
    assert MARK not in page and "<img src=x" not in page
    for text in shown:
        assert text in found.text, text


def vmemmap_(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from vmemmap.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=cwd)


def test_names_of_a_scenario_are_text_on_its_page(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    answer = vmemmap_("explore", "own.py", "--html", "e.html", "--trace-out", "trace.json", cwd=tmp_path)
    assert answer.returncode == 1, answer.stderr
    assert_text((tmp_path / "e.html").read_text(), MARK, QUOTE)
    page = vmemmap_("replay", "trace.json", "--format", "html", cwd=tmp_path)
    assert page.returncode == 1, page.stderr
    assert_text(page.stdout, MARK, QUOTE)


def test_the_name_of_a_file_is_text_on_its_page(tmp_path: Path) -> None:
    for suffix in (".npz", ".json"):
        shutil.copy(CAPTURES / "6.1-64k" / f"B{suffix}", tmp_path / f"{QUOTE}{suffix}")
    name = f"{QUOTE}.npz"
    for arguments in (["check", name], ["diff", name, name]):
        answer = vmemmap_(*arguments, "--html", "page.html", cwd=tmp_path)
        assert answer.returncode in (0, 1), answer.stderr
        assert_text((tmp_path / "page.html").read_text(), name)
        (tmp_path / "page.html").unlink()
