"""The TOML of a campaign: what it may say, and that nothing is written for one that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_campaign import JOBS, SMALL, campaign

from vmemmap import VmemmapError
from vmemmap.campaign.job import Job
from vmemmap.campaign.matrix import jobs_of
from vmemmap.campaign.spec import MAX_BYTES, MAX_JOBS, load, parse
from vmemmap.campaign.store import Store
from vmemmap.campaign.version import code, commit

R6 = '[[matrix]]\nscenarios = ["R6"]\n'


def listed(text: str, **options: Any) -> list[Job]:
    return jobs_of(parse(text, "SPEC.toml", Path()), **options)


def test_a_matrix_is_every_combination_and_an_exhaustive_search_has_no_seed() -> None:
    text = """
[[matrix]]
scenarios = ["R6", "r33_bbm_hole"]
variants = ["kernel", "4k-split-*-6.1"]
policies = { walker = ["kernel", "none"] }
kernels = ["6.1", "6.12"]
granules = ["4K"]
strategies = ["exhaustive", "random"]
seeds = "3-4,9"
seconds = [1, 2]
"""
    jobs = listed(text)
    # (1 + 2 variants) × 2 policies × 2 kernels × (1 + 3 seeds) × 2 budgets.
    assert len(jobs) == 3 * 2 * 2 * (1 + 3) * 2
    assert len({job.id for job in jobs}) == len(jobs)
    assert {job.seed for job in jobs if job.strategy == "exhaustive"} == {None}
    assert {job.seed for job in jobs if job.strategy == "random"} == {3, 4, 9}
    assert {job.scenario for job in jobs} == {"r06_ptdump_vs_hot_remove", "r33_bbm_hole"}


def test_what_two_matrices_ask_for_is_one_job() -> None:
    assert len(listed(R6 + R6)) == 1
    assert len(listed(SMALL)) == JOBS


def test_the_first_variant_is_the_one_without_a_name() -> None:
    assert [job.variant for job in listed(R6)] == ["kernel"]


WRONG = [
    ("", "matrix"),
    ("matrix = 3", "[[matrix]]"),
    ("[[matrix]]", "scenarios is missing"),
    ('[[matrix]]\nscenarios = ["R6"', "not TOML"),
    ('[[matrix]]\nscenario = ["R6"]', "unknown key 'scenario': expected one of kind, scenarios"),
    ("titel = 1\n" + R6, "unknown key 'titel': expected one of title, matrix"),
    ("[[matrix]]\nscenarios = []", "scenarios is empty"),
    (R6 + "seeds = []", "seeds is empty"),
    (R6 + "strategies = []", "strategies is empty"),
    ('[[matrix]]\nscenarios = ["R99"]', "no scenario 'R99'"),
    ("[[matrix]]\nscenarios = [6]", "scenarios is 6: expected text"),
    (R6 + 'variants = ["kernle"]', "kernel, mmap-only"),
    (R6 + 'variants = ["kernel", "kernle"]', "'kernle'"),
    (R6 + 'policies = { updaet = "bbm" }', "policy 'updaet' is unknown"),
    (R6 + 'policies = { update = "bbn" }', "policy update is 'bbn': did you mean bbm? (expected one of"),
    (R6 + "policies = 3", "policies is 3: expected a table"),
    (R6 + 'kernels = ["5.4"]', "kernel is '5.4': expected one of"),
    (R6 + 'granules = ["8K"]', "granule is '8K': expected 4K, 16K or 64K"),
    ('[[matrix]]\nscenarios = ["R17"]\ngranules = ["64K"]', "has no granule to choose"),
    (R6 + 'strategies = ["dfs"]', "strategy is 'dfs': expected one of exhaustive, random, pct"),
    (R6 + 'split = 2\nstrategies = ["pct"]', "split is 2: only an exhaustive search has parts"),
    (R6 + 'split = "2"', "split is '2': expected an integer"),
    (R6 + "split = 0", "split is 0: expected an integer of 1 to 64"),
    (R6 + "split = 65", "split is 65: expected an integer of 1 to 64"),
    (R6 + 'kind = "stress"\nsplit = 2', "unknown key 'split'"),
    (R6 + 'seeds = "9-3"', "seeds is '9-3'"),
    (R6 + "seeds = [-1]", "seeds is -1"),
    (R6 + "seeds = true", "seeds is True"),
    (R6 + 'seeds = "0-18446744073709551615"', "at most 100,000 jobs"),
    (R6 + 'strategies = ["random"]\nseeds = "0-99999"\nseconds = [1, 2]', "at most 100,000"),
    (R6 + "seconds = 0", "seconds is 0.0"),
    (R6 + "seconds = nan", "seconds is nan"),
    (R6 + "seconds = 1\nexecutions = 5", "a search has one budget"),
    (R6 + "executions = 0", "executions is 0"),
    (R6 + "threads = 4", "unknown key 'threads'"),
    (R6 + 'kind = "stress"\nstrategies = ["pct"]', "unknown key 'strategies'"),
    (R6 + 'kind = "soak"', "kind is 'soak': expected explore or stress"),
    (R6 + 'kind = "stress"\nthreads = 0', "threads is 0"),
    (R6 + 'strategies = ["pct"]\ndepth = 0', "depth is 0"),
    ("title = 3\n" + R6, "title"),
    ('[[matrix]]\nscenarios = ["own.py:mine"]', "--allow-code"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said[:30] for _, said in WRONG])
def test_what_is_wrong_is_one_line_that_says_where_and_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(VmemmapError) as caught:
        listed(text)
    line = str(caught.value)
    assert said in line
    assert line.startswith("SPEC.toml")
    assert "\n" not in line
    assert len(line) < 500


def test_nothing_is_written_for_a_wrong_campaign(tmp_path: Path) -> None:
    spec = tmp_path / "wrong.toml"
    for text in ("[[matrix]]\nscenario = 1", R6 + 'variants = ["none-such"]', "\x00", "[" * 5000):
        spec.write_text(text)
        answer = campaign("run", spec)
        assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1), answer
        assert list(tmp_path.iterdir()) == [spec]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (MAX_BYTES + 1)], ids=["not UTF-8", "too large"])
def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path, content: bytes) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_bytes(content)
    with pytest.raises(VmemmapError):
        load(spec)


def test_python_in_a_campaign_runs_only_when_that_is_said(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    (tmp_path / "own.py").write_text(
        "import pathlib, vmemmap\n"
        f"pathlib.Path({str(mark)!r}).touch()\n"
        "@vmemmap.scenario(title='own', sources=['me'])\n"
        "def mine(m):\n"
        "    block = m.memory.add()\n"
        "    m.setup(block)\n"
        "    return [m.ptdump(block)]\n"
    )
    spec = tmp_path / "spec.toml"
    spec.write_text('[[matrix]]\nscenarios = ["own.py:mine"]\n')
    answer = campaign("run", spec)
    assert answer.returncode == 2
    assert "--allow-code" in answer.stderr
    assert not mark.exists()
    assert campaign("run", spec, "--allow-code").returncode == 0
    assert mark.exists()
    # Nor does a database run code, nor other code than it was made for.
    mark.unlink()
    spec.write_text('[[matrix]]\nscenarios = ["own.py:mine"]\nseconds = 7\n')
    (tmp_path / "spec.db").unlink()
    jobs = jobs_of(load(spec), allow_code=True)
    mark.unlink()
    with pytest.raises(VmemmapError, match="--allow-code"):
        jobs[0].case()
    (tmp_path / "own.py").write_text("raise SystemExit('other code')\n")
    with pytest.raises(VmemmapError, match="has changed"):
        jobs[0].case(allow_code=True)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["explore", "stress"])
def test_a_job_that_is_refused_says_why_and_runs_once_it_can(kind: str, tmp_path: Path) -> None:
    own, spec = tmp_path / "own.py", tmp_path / "spec.toml"
    own.write_text(
        "import vmemmap\n"
        "@vmemmap.scenario(title='own', sources=['me'])\n"
        "def mine(m):\n"
        "    block = m.memory.add()\n"
        "    m.setup(block)\n"
        "    return [m.ptdump(block)]\n"
    )
    budget = 'strategies = ["random"]\nexecutions = 5\nseeds = "0-5"' if kind == "explore" else "seconds = [0.02, 0.03]"
    spec.write_text(f'[[matrix]]\nscenarios = ["own.py:mine"]\nkind = "{kind}"\n{budget}\n')
    jobs = jobs_of(load(spec), allow_code=True)
    with Store.create(tmp_path / "spec.db") as store:
        store.begin("", jobs, code(), commit(), "here")
    before = own.read_text()
    for damage in (lambda: own.write_text(before + "# other\n"), own.unlink):
        damage()
        answer = campaign("resume", spec, "--allow-code", "--workers", "1")
        assert answer.returncode == 3, answer
        reason = "the file has changed since the campaign was made" if own.exists() else "No such file or directory"
        assert f"refused: {own}: {reason}" in answer.stderr
        assert reason in answer.stdout
        assert f"{len(jobs)} jobs: 0 finished, {len(jobs)} failed" in answer.stdout
    own.write_text(before)
    answer = campaign("resume", spec, "--allow-code", "--workers", "1")
    # Sampling decides nothing; a stress is not asked to.
    assert answer.returncode == (3 if kind == "explore" else 0), answer
    assert f"{len(jobs)} jobs: {len(jobs)} finished;" in answer.stdout
    assert "failed" not in answer.stdout


@given(
    st.text()
    | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
)
def test_a_job_is_read_or_refused_and_never_anything_else(value: object) -> None:
    import json

    with pytest.raises(VmemmapError):
        Job.parse(value if isinstance(value, str) else json.dumps(value))


@given(st.text(alphabet='[]{}="\n#.,-0123456789abcdefgmatrixscenariosR6', max_size=60))
def test_any_text_is_a_campaign_or_one_line(text: str) -> None:
    try:
        jobs = listed(text)
    except VmemmapError as error:
        assert "\n" not in str(error).strip() or "not TOML" in str(error)
    else:
        assert 0 < len(jobs) <= MAX_JOBS


def test_a_job_is_the_same_after_a_journey() -> None:
    for job in listed(SMALL):
        assert Job.parse(job.text()) == job


def test_the_example_is_a_campaign() -> None:
    example = Path(__file__).parents[2] / "examples" / "campaign.toml"
    assert len(jobs_of(load(example))) > 40
