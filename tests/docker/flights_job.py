"""Runs inside a container: the flights job, at the agent and over the data folder that are named; prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cloudpickle
import flights  # examples/flights.py, copied beside this file

import sabot

if __name__ == "__main__":
    cloudpickle.register_pickle_by_value(flights)  # the agents do not have this module
    with sabot.connect(sys.argv[1]) as session, flights.flights_answer(session, Path(sys.argv[2])) as result:
        answer = result.to_table().to_pylist()
        receipt = result.receipt
        facts = {
            "answer": answer,
            "rows_in": receipt.rows_in,
            "copies": receipt.copies,
            "rows_out": receipt.rows_out,
            "lost": receipt.lost,
            "doubled": receipt.doubled,
            "wire_bytes": receipt.wire_bytes,
            "slots": session.slot_stats(),
        }
    print(json.dumps(facts))
