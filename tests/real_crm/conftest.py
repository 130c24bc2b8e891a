"""Real CRMs: `make test-crm` installs each in its own virtual environment and runs these tests."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.real_crm import bottlecrm, tryton
from tests.real_crm.real import RealSide
from tests.workers.handlers.crm.serving import standing
from tests.workers.handlers.crm.side import Side

ENVIRONMENTS = Path(__file__).parents[2] / ".crm"


@dataclass(frozen=True)
class RealCrm:
    """How to run a CRM.

    Attributes:
        running: runs the server from an environment, with its data in a folder.
        side: makes the `Side` for one test.
        needs: the required Python.
    """

    running: Callable[[Path, Path], AbstractContextManager[Any]]
    side: Callable[[Any], RealSide]
    needs: str


CRMS = {
    "bottlecrm": RealCrm(bottlecrm.running, bottlecrm.BottleCrmSide, "Python 3.12 or newer"),
    "tryton": RealCrm(tryton.running, tryton.TrytonSide, "Python 3.10 or newer"),
}


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in CRMS],
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RealCrm, Any]]:
    """Each CRM in turn, started once."""
    environment = ENVIRONMENTS / request.param
    crm = CRMS[request.param]
    if not (environment / ".ready").exists():
        pytest.skip(f"{request.param} is not installed: make test-crm does it, with {crm.needs}")
    with crm.running(environment, tmp_path_factory.mktemp(request.param)) as running:
        yield crm, running


@pytest.fixture
def side(server: tuple[RealCrm, Any]) -> Iterator[Side]:
    """A CRM without calls and contacts."""
    crm, running = server
    real = crm.side(running)
    real.empty()
    with standing(real):
        yield real
