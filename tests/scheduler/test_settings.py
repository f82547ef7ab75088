"""The replicated settings: what may be changed, within which limits, and all or nothing."""

from dataclasses import fields

import pytest

from raftd.scheduler.commands import SetSettings
from raftd.scheduler.model import Placement, Settings, TaskSpec
from raftd.scheduler.replies import Refused, SettingsSet
from raftd.scheduler.settings import LIMITS
from tests.scheduler.world import World, submission


def test_every_setting_has_limits_and_its_default_is_within() -> None:
    defaults = Settings()
    assert list(LIMITS) == [field.name for field in fields(Settings)]
    for name, limits in LIMITS.items():
        assert limits.least <= getattr(defaults, name) <= limits.most, name


def test_settings_change_together() -> None:
    world = World()
    assert world.do(SetSettings((("max_queue", 3), ("placement", 2)))) == SettingsSet()
    settings = world.state.settings
    assert (settings.max_queue, settings.placement) == (3, Placement.BINPACK)
    assert isinstance(settings.placement, Placement)


def test_one_bad_change_refuses_all() -> None:
    world = World()
    for bad in (("no_such_setting", 1), ("max_queue", 0), ("max_queue", 5), ("placement", 3)):
        assert world.refused(SetSettings((("max_queue", 9), bad))) == "invalid_request"


@pytest.mark.parametrize("name", list(LIMITS))
def test_a_value_beyond_the_limits_is_refused_with_the_limits(name: str) -> None:
    world = World()
    limits = LIMITS[name]
    for value in (limits.least - 1, limits.most + 1, 2**64 - 1):
        reply = world.do(SetSettings(((name, value),)))
        assert isinstance(reply, Refused)
        assert f"{limits.least} to {limits.most}" in reply.message
    assert world.state.settings == Settings()


def test_a_lease_can_only_be_made_longer_for_executors_count_on_the_one_they_hold() -> None:
    world = World()
    assert world.do(SetSettings((("lease_ms", 12_000),))) == SettingsSet()
    assert world.refused(SetSettings((("lease_ms", 6_000),))) == "rejected"


def test_request_ids_can_only_be_known_for_a_shorter_time_for_what_is_forgotten_would_run_again() -> None:
    world = World()
    assert world.do(SetSettings((("request_retention_ms", 600_000),))) == SettingsSet()
    assert world.refused(SetSettings((("request_retention_ms", 3_600_000),))) == "rejected"


def test_a_lower_queue_limit_refuses_the_next_and_keeps_what_was_accepted() -> None:
    world = World(["n1"])
    tasks = [world.submit() for _ in range(3)]
    world.do(SetSettings((("max_queue", 2),)))
    assert world.refused(submission("more", TaskSpec("noop"))) == "queue_full"
    assert world.queue() == tasks
