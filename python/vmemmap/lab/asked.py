"""What is asked of the core, and its answer as JSON: what explorations and stresses have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable

from .. import _core
from ..errors import InternalError, SpecError
from ..spec import parse_policy
from .description import Description
from .scenario import Describe, Scenario, find
from .scenario import scenario as _scenario

__all__ = ["AnyScenario", "answer", "check_seed", "chosen", "image", "order", "resolve"]

#: A scenario, its name or corpus number, or a bare function of a `Setup`.
AnyScenario = Scenario | str | Describe


def order(invariant: str) -> int:
    """For sorting by number: ``I6`` before ``I19``.

    Args:
        invariant: ``I1`` and so on.

    Returns:
        Its number.
    """
    return int(invariant[1:])


def chosen(settings: Iterable[str]) -> dict[str, str]:
    """Policies as typed, ``["update=bbm"]`` → ``{"update": "bbm"}``, against the table that the core holds.

    Args:
        settings: Texts like ``update=bbm``.

    Returns:
        Choice by policy.

    Raises:
        SpecError: No such policy, or no such choice; the line lists what there is.
    """
    known = {row: tuple(values) for row, values in _core.policies().items()}
    return dict(parse_policy(setting, known) for setting in settings)


def resolve(scenario: AnyScenario) -> Scenario:
    """The scenario that is meant.

    Args:
        scenario: A `Scenario`, its name or corpus number, ``FILE.py[:NAME]``, or a bare scenario function.

    Returns:
        The scenario.

    Raises:
        SpecError: No such scenario, or something that is none.
    """
    if isinstance(scenario, Scenario):
        return scenario
    if isinstance(scenario, str):
        return find(scenario)
    # What is callable without a name of its own, such as a `functools.partial`, would be a scenario without one.
    if callable(scenario) and hasattr(scenario, "__name__"):
        return _scenario(title=scenario.__name__, sources=[])(scenario)
    raise SpecError(f"{scenario!r} is no scenario")


def answer(text: str) -> object:
    """What the core answered, which is JSON.

    Args:
        text: The answer.

    Returns:
        What it holds.

    Raises:
        InternalError: It is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise InternalError(f"the core answered with no JSON: {error}") from error


def image(description: Description) -> _core.TableImage | None:
    """The tables that the machine starts from, if the description names an image.

    Args:
        description: A scenario in one variant.

    Returns:
        The tables; None without an image.
    """
    path = description.document["machine"]["image"]
    if path is None:
        return None
    from ..dumps.image import read_npz

    image = read_npz(path, kernel=description.kernel)
    return _core.TableImage(image.pa, image.level, image.words, image.description)


def check_seed(seed: int | None) -> None:
    """Refuse what is no seed.

    Args:
        seed: None: the core draws none.

    Raises:
        SpecError: It does not have 64 bits.
    """
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < 1 << 64):
        raise SpecError(f"seed is {seed!r}: expected an integer from 0 to 2^64 - 1")
