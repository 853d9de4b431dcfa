"""Dask's P2P shuffle of Parquet files held in memory.

`python dask_shuffle.py FILES... --key KEY --partitions N [--runs N]`

Two worker processes of one thread. Prints the seconds of each run, in one cluster.
"""

from __future__ import annotations

import argparse
import time

import dask
import dask.dataframe
from distributed import Client, LocalCluster, wait


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--key", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    dask.config.set({"dataframe.shuffle.method": "p2p", "distributed.logging.distributed": "error"})
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        frame = dask.dataframe.read_parquet(options.files, dtype_backend="pyarrow").persist()
        wait(frame)
        rows = len(frame)
        for _ in range(options.runs):
            start_s = time.perf_counter()
            shuffled = frame.shuffle(on=options.key, npartitions=options.partitions).persist()
            wait(shuffled)
            print(f"{time.perf_counter() - start_s:.4f}", flush=True)
            assert len(shuffled) == rows, "Dask lost or doubled rows"
            del shuffled


if __name__ == "__main__":
    main()
