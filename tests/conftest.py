"""Settings of the whole test suite."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# `make test` tries the same histories everywhere, so that a failure is the change's and not the dice's; `make nightly`
# throws the dice (VMEMMAP_RANDOM=1) and prints how to throw them again.
settings.register_profile("same everywhere", derandomize=True, print_blob=True)
settings.register_profile("random", derandomize=False, print_blob=True)
settings.load_profile("random" if os.environ.get("VMEMMAP_RANDOM") == "1" else "same everywhere")

# A shell without job control has what it runs in the background ignore Ctrl-C, and that is inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["pytester"]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is installed (VMEMMAP_NO_SKIP=1), a skipped test has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("VMEMMAP_NO_SKIP") == "1" and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("VMEMMAP_NO_SKIP: skipped tests count as failures", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
