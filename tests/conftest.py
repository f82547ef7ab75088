"""Fixtures and settings for every test: no test sees the clusters or the settings of the user who runs it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no failing test: no deadlines. In CI the examples are the same in every run.
settings.register_profile(
    "project",
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")

E2E = Path(__file__).parent / "e2e"
LONG_FILES = ("test_membership", "test_quorum", "test_snapshots", "test_workers", "test_workload")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks everything under tests/e2e, so that scripts/test can run it alone and a test cannot forget to say so."""
    for item in items:
        if E2E in item.path.parents:
            item.add_marker(pytest.mark.e2e)
    # A long file that begins last is waited for by everybody.
    items.sort(key=lambda item: item.path.stem not in LONG_FILES)


@pytest.fixture(scope="session", autouse=True)
def _no_user_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("RAFTD_", "RAFTCTL_")):
                patch.delenv(name)
        # How wide the terminal of whoever runs the tests is, and which colours it wants, is no test's business.
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(home))
        yield
