"""Starts one server, drives it closed-loop with 1 to n clients, appends a JSON line per number of clients.

    python bench.py --name mlserver --kind oip --workload jpeg_cls --models DIR --out results.jsonl -- PYTHON servers/srv_mlserver.py

The server is told what to do by BENCH_* variables and listens on 127.0.0.1:$BENCH_PORT. Whatever it starts is measured
with it and ended with it. Exit status 3: the server gave no good answer in time; its log says why.
"""

import argparse
import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import psutil

from kinds import KINDS
from processes import Tree, adopt_orphans, end_all, end_with_parent
from workloads import WORKLOADS, frames, percentile

NOT_READY = 3


class Numbers:
    """A number for each frame that no other frame of this machine's runs has."""

    def __init__(self):
        self.next, self.lock = time.time_ns(), threading.Lock()

    def take(self):
        with self.lock:
            self.next += 1
            return self.next


def drive(kind, port, prepared, numbers, clients, seconds, warm_s, tree):
    """One level: `clients` that each send their next frame when the last one is answered.

    What is answered within the window counts, after `warm_s` without counting: in a closed loop as many requests are
    under way at its end as at its begin.
    """
    done, errors, stop = [], [], threading.Event()
    together = threading.Barrier(clients + 1)

    def client(own):
        endpoint, answered, number = kind(port, own), [], own
        together.wait()
        while not stop.is_set():
            begin = time.perf_counter()
            try:
                timings = endpoint.send(prepared[number % len(prepared)], numbers.take())
                end = time.perf_counter()
                answered.append((end, end - begin, timings))
            except Exception as error:  # whatever it is, it is counted and told
                errors.append((time.perf_counter(), repr(error)[:300]))
                time.sleep(0.05)
            number += 1
        done.append(answered)
        endpoint.close()

    threads = [threading.Thread(target=client, args=(own,), daemon=True) for own in range(clients)]
    for thread in threads:
        thread.start()
    together.wait()
    time.sleep(warm_s)
    machine, own_cpu_s, (server_cpu_s, _, _) = psutil.cpu_times(), time.process_time(), tree.sample()
    start = time.perf_counter()
    resident = processes = 0
    while (left := start + seconds - time.perf_counter()) > 0:
        time.sleep(min(0.5, left))
        server_end_cpu_s, now, count = tree.sample()
        resident, processes = max(resident, now), max(processes, count)
    end, own_end_cpu_s, machine_end = time.perf_counter(), time.process_time(), psutil.cpu_times()
    proportional = tree.proportional()
    stop.set()
    for thread in threads:
        thread.join(130)

    inside = [[row for row in answered if start <= row[0] < end] for answered in done]
    latencies = sorted(row[1] for answered in inside for row in answered)
    failed = [text for at, text in errors if start <= at < end]
    medians = sorted(percentile(sorted(row[1] for row in answered), 50) for answered in inside if answered)
    wall, count = end - start, len(latencies)
    server, own = server_end_cpu_s - server_cpu_s, own_end_cpu_s - own_cpu_s
    fields = ("user", "system", "irq", "softirq", "steal")
    busy = sum(getattr(machine_end, field) - getattr(machine, field) for field in fields)
    ms = lambda value: None if value is None else round(value * 1e3, 3)  # noqa: E731
    return {
        "clients": clients, "seconds": round(wall, 2), "n": count,
        "errors": len(failed), "error": failed[0] if failed else None,
        "rps": round(count / wall, 2),
        **{f"p{q}_ms": ms(percentile(latencies, q)) for q in (50, 95, 99)},
        "max_ms": ms(latencies[-1]) if count else None,
        "client_p50_min_ms": ms(medians[0]) if medians else None,
        "client_p50_max_ms": ms(medians[-1]) if medians else None,
        "server_cpu_pct": round(100 * server / wall, 1),
        "server_cpu_ms": round(1e3 * server / count, 3) if count else None,
        "client_cpu_pct": round(100 * own / wall, 1),
        "other_cpu_pct": round(100 * max(0, busy - server - own) / wall, 1),
        "niced_cpu_pct": round(100 * (machine_end.nice - machine.nice) / wall, 1),
        "rss_peak_mb": round(resident / 1e6), "pss_mb": round(proportional / 1e6), "processes": processes,
        **stages(row[2] for answered in inside for row in answered),
    }


def stages(timings):
    """Median of each stage of our server's own watch, microseconds."""
    by_stage = collections.defaultdict(list)
    for timing in timings:
        if timing is not None:
            for field in timing.DESCRIPTOR.fields:
                by_stage[field.name].append(getattr(timing, field.name))
    return {"stages_p50_us": {name: percentile(sorted(values), 50) for name, values in by_stage.items()}} if by_stage else {}


def wait_ready(name, kind, port, prepared, numbers, server, timeout_s):
    """Until every frame got one good answer. Returns the seconds it took to the first."""
    begin, last, first = time.monotonic(), None, None
    for frame in prepared:
        while True:
            endpoint = kind(port, 0)
            try:
                endpoint.first(frame, numbers.take())
                first = first or time.monotonic() - begin
                break
            except Exception as error:  # not there yet, or it fails: told when the time is over
                last = repr(error)[:400]
            finally:
                endpoint.close()
            if server.poll() is not None or time.monotonic() - begin > timeout_s:
                print(f"{name}: no good answer after {time.monotonic() - begin:.0f} s: {last}", file=sys.stderr)
                raise SystemExit(NOT_READY)
            time.sleep(0.5)
    return round(first, 1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--kind", required=True, choices=KINDS)
    parser.add_argument("--pixels", action="store_true", help="raw frames are told as such, not as opaque bytes")
    parser.add_argument("--workload", required=True, choices=WORKLOADS)
    parser.add_argument("--models", required=True, help="folder of models, with images/ in it")
    parser.add_argument("--out", required=True)
    parser.add_argument("--log", default=os.devnull)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each inference")
    parser.add_argument("--port", type=int, default=18500)
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warm", type=float, default=3, help="seconds before a level counts")
    parser.add_argument("--start-timeout", type=float, default=90)
    parser.add_argument("--row", default="{}", help="JSON whose keys go into every line")
    parser.add_argument("command", nargs="+", help="after --")
    return parser.parse_args()


def main():
    a = arguments()
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    models = pathlib.Path(a.models).resolve()
    kind, numbers, tree = KINDS[a.kind], Numbers(), Tree()
    prepared = kind.prepare(frames(a.workload, models / "images"), a.pixels and a.workload != "jpeg_cls")
    environment = dict(
        os.environ, BENCH_WORKLOAD=a.workload, BENCH_MODELS=str(models), BENCH_PORT=str(a.port), BENCH_WORKERS=str(a.workers),
        BENCH_THREADS=str(a.threads), OMP_NUM_THREADS=str(a.threads), PYTHONPATH=str(pathlib.Path(__file__).resolve().parent),
    )
    with open(a.log, "ab") as log:
        server = subprocess.Popen(
            a.command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=end_with_parent,
        )
    try:
        ready_s = wait_ready(a.name, kind, a.port, prepared, numbers, server, a.start_timeout)
        for clients in map(int, a.clients.split(",")):
            level = drive(kind, a.port, prepared, numbers, clients, a.seconds, a.warm, tree)
            row = {
                "server": a.name, "workload": a.workload, "workers": a.workers, "threads": a.threads, "kind": a.kind,
                **json.loads(a.row), "ready_s": ready_s, **level,
                "load1": round(os.getloadavg()[0], 2), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            with open(a.out, "a") as out:
                out.write(json.dumps(row) + "\n")
            print(
                f"  {clients:2d} clients {row['rps']:7.1f}/s  p50 {row['p50_ms']} p99 {row['p99_ms']} ms  server "
                f"{row['server_cpu_ms']} ms a request, {row['pss_mb']} MB  client {row['client_cpu_pct']} %  others "
                f"{row['other_cpu_pct']} %  errors {row['errors']} {row['error'] or ''}",
                flush=True,
            )
    finally:
        end_all(first=server.pid)


if __name__ == "__main__":
    main()
