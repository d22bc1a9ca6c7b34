"""What every test is given back."""

import logging
import signal
from collections.abc import Iterator

import pytest

# A shell that starts the tests in the background has them, and so the programs that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    """Hydra gives the root logger a handler on standard output, which in a test is closed when the test ends."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are no name for a test: gzip's hold the time, and processes that share the tests must agree on names."""
    return argname if isinstance(val, bytes) else None
