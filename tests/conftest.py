"""Settings of the whole test suite."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["pytester"]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is installed (VMEMMAP_NO_SKIP=1), a skipped test has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("VMEMMAP_NO_SKIP") == "1" and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("VMEMMAP_NO_SKIP: skipped tests count as failures", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
