"""Stand-ins for the CRMs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.handlers.crm.hubspot_side import HubSpotSide
from tests.workers.handlers.crm.pipedrive_side import PipedriveSide
from tests.workers.handlers.crm.salesforce_side import SalesforceSide
from tests.workers.handlers.crm.serving import standing
from tests.workers.handlers.crm.side import Side
from tests.workers.handlers.crm.zoho_side import ZohoSide


@pytest.fixture(params=[HubSpotSide, PipedriveSide, SalesforceSide, ZohoSide])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    """Each CRM in turn."""
    stand_in: Side = request.param()
    if isinstance(stand_in, ZohoSide):
        stand_in.folder = tmp_path
    with standing(stand_in):
        yield stand_in


@pytest.fixture
def hubspot() -> Iterator[HubSpotSide]:
    """HubSpot."""
    stand_in = HubSpotSide()
    with standing(stand_in):
        yield stand_in


@pytest.fixture
def pipedrive() -> Iterator[PipedriveSide]:
    """Pipedrive."""
    stand_in = PipedriveSide()
    with standing(stand_in):
        yield stand_in


@pytest.fixture
def salesforce() -> Iterator[SalesforceSide]:
    """Salesforce."""
    stand_in = SalesforceSide()
    with standing(stand_in):
        yield stand_in


@pytest.fixture
def zoho(tmp_path: Path) -> Iterator[ZohoSide]:
    """Zoho CRM."""
    stand_in = ZohoSide()
    stand_in.folder = tmp_path
    with standing(stand_in):
        yield stand_in
