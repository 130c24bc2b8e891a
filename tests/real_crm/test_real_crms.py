"""What holds for the handler of every cloud CRM holds with real CRMs, too."""

# The tests themselves: pytest collects them here, with the `side` of this folder's conftest.py.
from tests.workers.handlers.crm.test_crms import *  # noqa: F403
