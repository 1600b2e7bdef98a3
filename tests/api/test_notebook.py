"""What a notebook shows: answers as HTML, traces as tables, pictures; and the notebooks of the documents, run."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vmemmap
from vmemmap.errors import SpecError
from vmemmap.lab.trace import Step, Trace

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def result() -> vmemmap.Result:
    return vmemmap.explore("R6", variant="mmap-only")


def test_a_trace_becomes_a_table_with_every_word_exact(result: vmemmap.Result) -> None:
    large = (1 << 63) + 1
    trace = Trace([*result.trace, Step(9_999, 1, "x", "write", address=large, new=None)])
    frame, table = trace.to_pandas(), trace.to_arrow()
    assert list(frame.columns) == table.column_names and len(frame) == table.num_rows == len(trace)
    assert int(frame["address"].iloc[-1]) == large == table["address"][-1].as_py()
    assert frame["new"].isna().iloc[-1] and table["new"][-1].as_py() is None
    assert [Step(**row) for row in table.to_pylist()] == list(trace)


def test_a_trace_is_a_tuple_still(result: vmemmap.Result) -> None:
    assert isinstance(result.trace, tuple) and result.trace[0].step == 1
    assert result.trace == tuple(result.trace)


def test_answers_are_shown_as_escaped_html(result: vmemmap.Result) -> None:
    saved = result.trace_file()
    assert saved is not None
    machine = vmemmap.Machine(boot_memory="256M")
    stressed = vmemmap.stress("R6", seconds=0.1)
    for shown in (result, result.trace, vmemmap.replay(saved), machine, stressed):
        page = shown._repr_html_()
        assert page.startswith("<div>") and page.endswith("</div>") and page.count("<table>") == 1
    assert "R6" in result.summary or "r06" in result._repr_html_()
    assert "&lt;b&gt;" in Trace([Step(1, 0, "<b>", "read")])._repr_html_()
    assert "more" in Trace([Step(n, 0, "a", "read") for n in range(200)])._repr_html_()


def test_tables_are_read_only_arrays_of_the_machine_itself() -> None:
    machine = vmemmap.Machine(boot_memory="256M")
    table = next(iter(machine.tables.values()))
    assert isinstance(table, np.ndarray) and not table.flags.writeable and not table.flags.owndata


def test_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    from vmemmap import plot

    axes = plot.savings("1T")
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert "2M\n4K pages" in labels and "512M\n64K pages" in labels
    assert len(axes.patches) == len(labels)
    rows: list[dict[str, Any]] = [
        {"policies": {"update": name}, "modelled": [{"cpus": n, "operation": "exchange", "p50_ns": n} for n in (1, 8)]}
        for name in ("store", "bbm")
    ]
    assert [line.get_label() for line in plot.modelled_cost(rows).lines] == ["update=store", "update=bbm"]
    with pytest.raises(SpecError, match="no row has a modelled cost"):
        plot.modelled_cost([])
    machine = vmemmap.Machine(boot_memory="256M", hvo=True)
    machine.hugetlb["2M"].nr_hugepages = 4
    drawn = plot.vmemmap_map(machine)
    assert sum(patch.get_width() for patch in drawn.patches) == pytest.approx(len(drawn.get_yticks()))
    pyplot.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_of_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(cells, 1):
        assert cell["outputs"] == [] and cell["execution_count"] is None, "kept without outputs, which would go stale"
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile("".join(cell["source"]), f"{path.name}[{number}]", "exec"), names)
    assert len(cells) >= 5
    from matplotlib import pyplot

    pyplot.close("all")
