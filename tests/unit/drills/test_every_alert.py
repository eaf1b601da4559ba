"""Every alert is caused by one drill."""

from __future__ import annotations

from collections import Counter

from monitoring.model import Alert
from monitoring.rules import groups
from tests.drills.controller_drills import CONTROLLER_DRILLS
from tests.drills.service_drills import SERVICE_DRILLS
from tests.drills.system_drills import SYSTEM_DRILLS


def test_every_alert_has_one_drill() -> None:
    alerts = Counter(
        rule.name for group in groups() for rule in group.rules if isinstance(rule, Alert)
    )
    assert Counter([*SYSTEM_DRILLS, *SERVICE_DRILLS, *CONTROLLER_DRILLS]) == alerts


def test_the_groups_of_drills_are_those_of_the_rules() -> None:
    (drill, *_) = SYSTEM_DRILLS.values()
    assert set(drill.all_factors()) == {group.name for group in groups()}
