"""``vmemmap litmus``."""

from __future__ import annotations

import click

from . import HOLDS, INCONCLUSIVE, INTERRUPTED, MISUSE, VIOLATED, json_option, print_json, print_notes, tell


@click.command("litmus")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@click.option(
    "--memory",
    type=click.Choice(["sc", "views", "promises"]),
    default="sc",
    show_default=True,
    help="sc: the explored machine; views: weak memory in program order; promises: stores early too.",
)
@click.option(
    "--ets",
    type=click.Choice(["none", "2", "3"]),
    default="2",
    show_default=True,
    help="FEAT_ETS2 of the CPUs; a test that asks for more by its Variant has more.",
)
@click.option("--kinds", metavar="KINDS", type=click.Path(), help="A kinds file of herd to compare with.")
@click.option("--budget", default="60s", show_default=True, help="Steps (5000) or time (10s) for each test.")
@json_option
def command(files: tuple[str, ...], memory: str, ets: str, kinds: str | None, budget: str, as_json: bool) -> int:
    """Run herd's AArch64 litmus tests and answer as herd does.

    A construct that is none of the core is refused by file and line; in a run of several files such tests are counted
    and listed. Exit codes: 0 done, 1 a test differs from KINDS, 2 wrong call or the only file is refused, 3 a test is
    undecided.

    \b
    Examples:
      vmemmap litmus MP.litmus
      vmemmap litmus MP.litmus --memory promises --ets none
      vmemmap litmus tests/*.litmus --memory views --kinds kinds.txt --json
    """
    from ..errors import SpecError
    from ..lab import litmus
    from ..spec import parse_budget
    from ._progress import bar

    expected, notes = ({}, []) if kinds is None else litmus.read_kinds(kinds)
    print_notes(notes)
    answers = litmus.LitmusAnswers(memory, ets)

    interrupted = False
    limit = parse_budget(budget)
    try:
        with bar("running litmus tests", float(len(files)), "tests") as tick:
            for done, answer in enumerate(
                litmus.as_they_come(files, memory=memory, ets=ets, kinds=expected, budget=limit), 1
            ):
                answers.add(answer)
                if isinstance(answer, litmus.Answer) and not as_json:
                    click.echo(answer.found["text"])
                if tick is not None:
                    tick(done, done, f"of {len(files)}")
    except KeyboardInterrupt:
        interrupted = True
    if kinds is not None and not any(answer.kind for answer in answers.tests):
        print_notes([f"{kinds} names none of the tests that were run"])
    if len(files) == 1 and answers.unsupported:
        raise SpecError(answers.unsupported[0].text())
    if as_json:
        print_json(answers.to_dict())
    else:
        print_notes(f"unsupported: {refused.text()}" for refused in answers.unsupported)
        for answer in answers.differences:
            click.echo(f"{answer.name}: {answer.observation}, and {answer.kind} in {kinds}")
        if kinds is not None or answers.unsupported:
            counted = answers.counts()
            words = [f"{n} {what}" for what, n in counted.items() if kinds is not None or what == "unsupported"]
            (tell if kinds is None else click.echo)(", ".join(words))
    if interrupted:
        return INTERRUPTED
    if answers.differences:
        return VIOLATED
    if answers.unknown:
        return INCONCLUSIVE
    return HOLDS if answers.tests else MISUSE
