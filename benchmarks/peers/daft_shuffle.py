"""Daft's shuffle on Ray of Parquet files held in memory.

`python daft_shuffle.py FILES... --key KEY --partitions N [--runs N]`

Ray with two CPUs. Prints the seconds of each run, in one Ray cluster.
"""

from __future__ import annotations

import argparse
import logging
import time

import daft
import ray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--key", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    ray.init(
        num_cpus=2,
        _node_ip_address="127.0.0.1",
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    daft.set_runner_ray()
    frame = daft.read_parquet(options.files).collect()
    rows = frame.count_rows()
    for _ in range(options.runs):
        start_s = time.perf_counter()
        shuffled = frame.repartition(options.partitions, options.key).collect()
        print(f"{time.perf_counter() - start_s:.4f}", flush=True)
        assert shuffled.count_rows() == rows, "Daft lost or doubled rows"
        del shuffled
    ray.shutdown()


if __name__ == "__main__":
    main()
