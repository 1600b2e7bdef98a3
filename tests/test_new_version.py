"""What a new kernel, policy value or answer of a kernel touches: the compiler lists it, and nothing goes on in silence.

Each test adds something that means nothing to a copy of the sources and reads what the compiler says. `pytest -s`
prints the places.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CRATES = ("arch", "kernel")


@dataclass(frozen=True)
class Place:
    file: str
    line: int
    code: str
    message: str
    suggestion: tuple[int, int, str] | None
    """Bytes of the file that the compiler would replace, and by what."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    manifest = (ROOT / "Cargo.toml").read_text()
    members = ", ".join(f'"rust/{crate}"' for crate in CRATES)
    (tmp_path / "Cargo.toml").write_text(
        re.sub(r"^members = .*$", f"members = [{members}]", manifest, flags=re.MULTILINE)
    )
    shutil.copy(ROOT / "Cargo.lock", tmp_path)
    for crate in CRATES:
        # With new times: to cargo, one copy is the next one's earlier state.
        shutil.copytree(ROOT / "rust" / crate / "src", tmp_path / "rust" / crate / "src", copy_function=shutil.copyfile)
        own = (ROOT / "rust" / crate / "Cargo.toml").read_text()
        (tmp_path / "rust" / crate / "Cargo.toml").write_text(re.sub(r"\[dev-dependencies\][^\[]*", "", own))
    return tmp_path


def check(copy: Path) -> list[Place]:
    """What does not compile."""
    env = os.environ | {"CARGO_TARGET_DIR": str(ROOT / "target" / "new-version")}
    command = ["cargo", "check", "--offline", "--quiet", "--package", "vmemmap-kernel", "--message-format", "json"]
    run = subprocess.run(command, cwd=copy, env=env, check=False, capture_output=True, text=True)
    places = list[Place]()
    for line in run.stdout.splitlines():
        message = json.loads(line).get("message")
        if not message or message["level"] != "error" or not message["spans"]:
            continue
        at = next(span for span in message["spans"] if span["is_primary"])
        edits = [
            span
            for child in message["children"]
            for span in child["spans"]
            if span["suggested_replacement"] is not None
        ]
        edit = (edits[0]["byte_start"], edits[0]["byte_end"], edits[0]["suggested_replacement"]) if edits else None
        places.append(
            Place(at["file_name"], at["line_start"], (message["code"] or {}).get("code", ""), message["message"], edit)
        )
    assert places or run.returncode == 0, run.stderr
    return places


def show(title: str, places: list[Place]) -> None:
    print(f"\n{title}: {len(places)} places")
    for place in places:
        print(f"    {place.file}:{place.line}: {place.message}")


def insert(path: Path, after: str, text: str) -> int:
    """Insert `text` wherever the pattern `after` ends; how often."""
    changed, count = re.subn(f"({after})", lambda found: found[0] + text, path.read_text(), flags=re.MULTILINE)
    path.write_text(changed)
    return count


def test_a_new_version_does_not_compile_until_every_question_is_answered(copy: Path) -> None:
    assert check(copy) == []
    assert insert(copy / "rust/arch/src/layout.rs", r"^versions! \{\n", '    V99_9 = "99.9",\n') == 1
    found = list[Place]()
    while places := check(copy):
        assert all(place.code == "E0004" and place.suggestion for place in places), places
        found += places
        for file in {place.file for place in places}:
            path = copy / file
            text = path.read_bytes()
            edits = {place.suggestion for place in places if place.file == file and place.suggestion}
            for start, end, replacement in sorted(edits, reverse=True):
                text = text[:start] + replacement.encode() + text[end:]
            path.write_bytes(text)
    show("a version, beside its line in the list", found)
    assert Counter(place.file for place in found) == {"rust/arch/src/layout.rs": 6, "rust/kernel/src/features.rs": 1}


def test_a_row_of_features_has_an_answer_to_every_question(copy: Path) -> None:
    features = copy / "rust/kernel/src/features.rs"
    fields = re.findall(r"^    pub (\w+): ", features.read_text(), re.MULTILINE)
    insert(features, r"\Z", "\nconst V99_9: Features = Features { fake_heads: true };\n")
    [missing] = [place for place in check(copy) if place.code == "E0063"]
    named, others = missing.message.count("`") // 2 - 1, re.search(r"and (\d+) other fields", missing.message)
    show(f"a row with one of {len(fields)} answers", [missing])
    assert named + int(others[1] if others else 0) == len(fields) - 1


def test_a_new_value_does_not_compile_until_every_question_about_it_is_answered(copy: Path) -> None:
    """Every policy and every answer of a kernel that is no plain bool or number gets a value more, all at once."""
    policy, features = copy / "rust/kernel/src/policy.rs", copy / "rust/kernel/src/features.rs"
    policies = re.findall(r"^    \w+: (\w+) = \"", policy.read_text(), re.MULTILINE)
    answers = re.findall(r"^pub enum (\w+) ", features.read_text(), re.MULTILINE)
    assert insert(
        policy, r'^    \w+: \w+ = "[^"]*" \{\n', '        ThrowAway = "throw-away": "means nothing",\n'
    ) == len(policies)
    assert insert(features, r"^pub enum \w+ \{\n", "    ThrowAway,\n") == len(answers)
    places = check(copy)
    assert {place.code for place in places} == {"E0004"}
    count = Counter(name for place in places for name in set(re.findall(r"(\w+)::ThrowAway", place.message)))
    show("a value of every policy and of every answer", places)
    print("\n".join(f"    {name}: {count[name]}" for name in [*policies, *answers]))
    assert not [name for name in [*policies, *answers] if not count[name]]
    assert count["PteUpdate"] >= 5
    assert sum(count.values()) >= 50
