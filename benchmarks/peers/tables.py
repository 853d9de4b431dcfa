"""The files of TPC-H's tables, as every peer of benchmarks/tpch.py is given them on its command line."""

from __future__ import annotations

import argparse


def tables_of_arguments() -> tuple[list[str], list[str]]:
    """The files of lineitem and those of orders."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lineitem", nargs="+", required=True)
    parser.add_argument("--orders", nargs="+", required=True)
    options = parser.parse_args()
    return options.lineitem, options.orders
