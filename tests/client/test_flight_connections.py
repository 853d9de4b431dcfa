"""The connections that a session keeps to read results."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from sabot.client.flight_connections import FlightConnections

ADDRESS = "127.0.0.1:9"


def test_an_address_is_lent_the_same_client_again_and_another_address_another() -> None:
    connections = FlightConnections()
    with connections.lend(ADDRESS) as first:
        pass
    with connections.lend(ADDRESS) as again, connections.lend("127.0.0.1:10") as other:
        assert again is first
        assert other is not first
    connections.close()


def test_a_client_that_failed_in_use_is_not_lent_again() -> None:
    connections = FlightConnections()
    with pytest.raises(pa.ArrowException), connections.lend(ADDRESS) as broken:
        list(broken.do_action(fl.Action("ping", b""), fl.FlightCallOptions(timeout=0.01)))
    with connections.lend(ADDRESS) as next_one:
        assert next_one is not broken
    broken.close()
    connections.close()
