"""The stub of the extension says what the extension has, and the answers have the keys that their types name."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints, is_typeddict

import pytest

import vmemmap
from vmemmap import _core
from vmemmap.bench import Figure
from vmemmap.dumps import answers as of_dumps
from vmemmap.dumps.image import read_npz
from vmemmap.lab import answers as of_lab
from vmemmap.machine import answers as of_machines
from vmemmap.sizing.answers import CoreLayout

STUB = Path(vmemmap.__file__).parent / "_core.pyi"
CAPTURE = Path(__file__).parents[1] / "captures/6.1-4k/B.npz"
TREE = ast.parse(STUB.read_text())


def parameters(function: ast.FunctionDef, *, bound: bool) -> list[tuple[str, bool, bool]]:
    """(name, keyword only, has a default) of each, without `self` or `cls`."""
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    without = len(positional) - len(a.defaults)
    listed = [(arg.arg, False, at >= without) for at, arg in enumerate(positional)]
    listed += [(arg.arg, True, default is not None) for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    return listed[1:] if bound else listed


def runtime(function: Any) -> list[tuple[str, bool, bool]]:
    signature = inspect.signature(function)
    return [
        (p.name, p.kind is p.KEYWORD_ONLY, p.default is not p.empty)
        for p in signature.parameters.values()
        if p.name not in ("self", "cls", "this")
    ]


def public(names: Any) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_the_stub_names_what_the_extension_has() -> None:
    functions = {node.name for node in TREE.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name for node in TREE.body if isinstance(node, ast.ClassDef)}
    constants = {
        node.target.id for node in TREE.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert functions | classes | constants == public(vars(_core))


@pytest.mark.parametrize("node", [n for n in TREE.body if isinstance(n, ast.FunctionDef)], ids=lambda n: n.name)
def test_a_function_of_the_stub_has_the_parameters_of_the_extension(node: ast.FunctionDef) -> None:
    assert parameters(node, bound=False) == runtime(getattr(_core, node.name))


@pytest.mark.parametrize("node", [n for n in TREE.body if isinstance(n, ast.ClassDef)], ids=lambda n: n.name)
def test_a_class_of_the_stub_has_the_members_of_the_extension(node: ast.ClassDef) -> None:
    real = getattr(_core, node.name)
    members = {member.name: member for member in node.body if isinstance(member, ast.FunctionDef)}
    assert public(members) == public(vars(real))
    for name, member in members.items():
        decorators = {d.id for d in member.decorator_list if isinstance(d, ast.Name)}
        if name == "__new__":
            assert parameters(member, bound=True) == runtime(real)
        elif "property" in decorators:
            assert inspect.isgetsetdescriptor(vars(real)[name]), name
        else:
            assert parameters(member, bound="staticmethod" not in decorators) == runtime(getattr(real, name)), name
            assert ("staticmethod" in decorators) == isinstance(vars(real)[name], staticmethod), name


def keys(found: Mapping[str, Any], kind: Any) -> None:
    """`found` has every key that `kind` requires and none that it does not know; so have the objects in it."""
    assert kind.__required_keys__ <= found.keys() <= kind.__required_keys__ | kind.__optional_keys__, kind.__name__
    for name, hint in get_type_hints(kind).items():
        if name in found and is_typeddict(hint) and found[name] is not None:
            keys(found[name], hint)


def test_answers_about_dumps_and_machines_have_their_keys() -> None:
    image = read_npz(CAPTURE)
    tables = _core.TableImage(image.pa, image.level, image.words, image.description)
    shape = _core.Shape.of_image(tables)
    keys(_core.layout(4096, 48, "6.1"), CoreLayout)
    survey = _core.survey(tables)
    keys(survey, of_dumps.Survey)
    keys(survey["sections"][0], of_dumps.Section)
    keys(_core.check_image(tables, True, True, []), of_dumps.CheckReport)
    keys(_core.diff(shape, shape), of_dumps.DiffReport)
    keys(_core.bench("exchange", True), Figure)
    keys(vmemmap.check(CAPTURE).to_dict(), of_dumps.CheckDict)
    keys(vmemmap.diff(CAPTURE, CAPTURE).to_dict(), of_dumps.DiffDict)
    machine = vmemmap.Machine(hotplug_memory="1G")
    machine.memory.add("128M")
    keys(machine._core.pool(1), of_machines.PoolCounts)
    keys(machine._core.blocks()[0], of_machines.BlockState)


def test_answers_about_scenarios_have_their_keys() -> None:
    found = vmemmap.explore("R6", variant="mmap-only", budget=5.0, shorten=0.5)
    keys(found.raw, of_lab.Exploration)
    keys(found.to_dict(), of_lab.ExploreDict)
    for counterexample in found.raw["witnesses"].values():
        keys(counterexample, of_lab.Counterexample)
        keys(counterexample["shown"][0], of_lab.StepDict)
        keys(counterexample["trace"]["segments"][0], of_lab.Segment)
    trace = found.trace_file()
    assert trace is not None
    again = vmemmap.replay(trace, policies={"walker": "kernel"})
    keys(again.raw, of_lab.ReplayReport)
    keys(again.to_dict(), of_lab.ReplayDict)
    assert again.divergence is not None
    keys(again.divergence, of_lab.Divergence)
    stressed = vmemmap.stress("R6", seconds=0.2)
    keys(stressed.raw, of_lab.StressReport)
    keys(stressed.to_dict(), of_lab.StressDict)
    keys(stressed.raw["actors"][0], of_lab.ActorCount)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
