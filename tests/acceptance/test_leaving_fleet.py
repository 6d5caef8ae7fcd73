"""A tenant leaves a running fleet: Beat and a worker do what nobody has to ask for."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.acceptance.conftest import Fleet
from tests.customers import add_key, join
from tests.leaving import certificate, let_the_day_come

pytestmark = pytest.mark.slow


@pytest.mark.timeout(120)
def test_the_sweeper_of_a_running_fleet_finishes_by_itself(fleet: Fleet, engine: sa.Engine) -> None:
    customer = join(fleet.stack, fleet.runtime, "left-by-sweep")
    add_key(fleet.runtime, customer.name)
    offboardings = fleet.runtime.services.offboardings
    departure = offboardings.begin(customer.name, "x", retention=timedelta(days=30), actor="test")
    assert departure.stop is not None
    report = offboardings.wait_for(departure.stop, timedelta(seconds=15), lambda seen: None)
    assert report.silent == []
    let_the_day_come(engine)
    fleet.wait_until(lambda: offboardings.show(customer.name).offboarding.certificate is not None)
    assert certificate(fleet.runtime, customer.name)["passed"] is True
    assert fleet.states(customer.name) == ["destroyed"]
    last = fleet.runtime.services.registry.audit_log(customer.name)[-1]
    assert (last.action, last.actor) == ("tenant.shred-certified", "sweep")
