"""A compromise with real processes: all is re-encrypted while services write and a worker is killed."""

from pathlib import Path

import pytest

from byok.core.reencryption import CampaignState
from byok.failpoints import FailPoint
from tests.chaos.reencryption import scene, under_load

pytestmark = pytest.mark.slow


@pytest.mark.timeout(180)
@pytest.mark.parametrize("point", [FailPoint.ROWS_REPLACED])
def test_a_compromise_re_encrypts_every_row_and_loses_no_write(
    tmp_path: Path, environment: dict[str, str], point: FailPoint
) -> None:
    with scene(tmp_path, 5_000, durable=False) as on:
        report = under_load(on, point)
    campaign = report.work.campaign
    assert campaign.state is CampaignState.DONE
    assert report.kills == 1
    assert report.writes > 50
    assert report.lost_writes == 0
    assert report.old_rows == 0
    assert campaign.tally.rewritten >= 4_000
    assert dict(campaign.before).keys() >= {1}
    assert dict(campaign.after).keys() == {2}
    assert report.audited
