"""What all end-to-end tests share: the option that makes a skipped test a failure, and the tools that were built."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e import host, packaged, servers, tools


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --nothing-skipped, for CI: there, what is missing is a failure."""
    parser.addoption("--nothing-skipped", action="store_true", help="fail if a test was skipped")


def pytest_configure(config: pytest.Config) -> None:
    """Name the one exception: Wok itself is in no package registry, so CI cannot install it."""
    config.addinivalue_line("markers", "needs_wok: may be skipped everywhere, because no registry has Wok")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one where nothing may be skipped, but for those that need Wok itself."""
    report = yield
    is_failure = item.config.getoption("--nothing-skipped") and item.get_closest_marker("needs_wok") is None
    if report.skipped and is_failure and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where nothing may be: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def jaeger_program() -> Path:
    return servers.built(tools.jaeger())


@pytest.fixture(scope="session")
def victoria_logs_program() -> Path:
    return servers.built(tools.victoria_logs())


@pytest.fixture(scope="session")
def grafana_parts() -> Path:
    return servers.built(tools.grafana_parts())


@pytest.fixture(scope="session")
def collector_program() -> Path:
    return servers.built(tools.collector())


@pytest.fixture(scope="session")
def debian() -> Path:
    """The files of a host, to be copied and booted."""
    if (sentence := host.missing()) is not None:
        pytest.skip(sentence)
    return servers.built(tools.debian())


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> packaged.Packages:
    """The .deb and the .rpm of this checkout."""
    return packaged.build(tmp_path_factory.mktemp("packages"), 1)
