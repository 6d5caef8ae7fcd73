"""The workers without their bulkhead, to see what it is good for."""

from contextlib import AbstractContextManager, nullcontext

from byok.core.model import Connection
from byok.kms.bulkhead import Bulkhead
from byok.settings import load_settings
from workers.app import make_app


def _admit_all(_bulkhead: Bulkhead, _connection: Connection) -> AbstractContextManager[None]:
    return nullcontext()


Bulkhead.admitted = _admit_all  # type: ignore[method-assign,assignment]  # that is the point
app = make_app(load_settings())
