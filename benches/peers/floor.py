"""The floor: the same pipeline in processes of its own, without a server. Appends a JSON line as bench.py does."""

import argparse
import json
import multiprocessing
import os
import pathlib
import resource
import time

from workloads import WORKLOADS, frames, percentile

WARM_S = 1.5


def work(a, together, results):
    from pipeline import Pipeline, preprocess

    bodies = frames(a.workload, pathlib.Path(a.models) / "images")
    pipeline, number = Pipeline(a.workload, a.models, a.threads), 0
    end = time.perf_counter() + WARM_S
    while time.perf_counter() < end:
        pipeline.one(bodies[0])
    together.wait()
    cpu_s, start, latencies = time.process_time(), time.perf_counter(), []
    while time.perf_counter() - start < a.seconds:
        begin = time.perf_counter()
        pipeline.one(bodies[number % len(bodies)])
        latencies.append(time.perf_counter() - begin)
        number += 1
    wall, cpu_s = time.perf_counter() - start, time.process_time() - cpu_s
    begin = time.perf_counter()
    for number in range(20):
        preprocess(a.workload, bodies[number % len(bodies)])
    preprocess_s = (time.perf_counter() - begin) / 20
    results.put((latencies, wall, cpu_s, preprocess_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--workload", required=True, choices=WORKLOADS)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=1, help="of each inference")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--row", default="{}")
    a = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(a.threads)
    spawn = multiprocessing.get_context("spawn")
    results, together = spawn.Queue(), spawn.Barrier(a.workers)
    processes = [spawn.Process(target=work, args=(a, together, results), daemon=True) for _ in range(a.workers)]
    for process in processes:
        process.start()
    measured = [results.get(timeout=a.seconds + 120) for _ in processes]
    for process in processes:
        process.join()
    latencies = sorted(latency for one in measured for latency in one[0])
    row = {
        "server": "floor", "workload": a.workload, "workers": a.workers, "threads": a.threads, "kind": "in process",
        **json.loads(a.row), "clients": 0, "seconds": round(max(one[1] for one in measured), 2), "n": len(latencies), "errors": 0,
        "rps": round(sum(len(one[0]) / one[1] for one in measured), 2),
        **{f"p{q}_ms": round(percentile(latencies, q) * 1e3, 3) for q in (50, 95, 99)},
        "server_cpu_ms": round(1e3 * sum(one[2] for one in measured) / len(latencies), 3),
        "preprocess_ms": round(1e3 * measured[0][3], 3), "rss_peak_mb": round(sum(one[4] for one in measured) / 1e6),
        "load1": round(os.getloadavg()[0], 2), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with open(a.out, "a") as out:
        out.write(json.dumps(row) + "\n")
    print(f"  in process {row['rps']:7.1f}/s  p50 {row['p50_ms']} p99 {row['p99_ms']} ms  {row['server_cpu_ms']} ms of CPU a frame", flush=True)


if __name__ == "__main__":
    main()
