"""The whole side-by-side run: every server by itself, one after the other, every workload, every number of clients, repeated.

    python run.py --binary target/release/lineproof [--seconds 10] [--repeats 3] [--servers a,b] [--workloads a,b] [--clients 1,4,16]

Ended and started again it goes on where it was: rows that are in the result file are not measured twice. Rows of ours count for
the binary that gave them; a new build is measured anew.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from blake3 import blake3

import report
from processes import adopt_orphans, end_all, end_with_parent
from workloads import WORKLOADS

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE, OUT = ROOT / ".cache" / "peers", ROOT / "target" / "peers"
# By default glibc gives memory back after each request and takes page faults for it at the next, hundreds a frame. Our allocator keeps
# pages, so the peers' may, too.
KEEP_PAGES = "glibc.malloc.trim_threshold=1073741824:glibc.malloc.mmap_threshold=33554432"
# Seconds a start, the first answers and the end take, until it was seen.
START_S = 15


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    venv: str
    script: str
    kind: str
    workers: int = 2
    threads: int = 1
    clients: tuple = (1, 4, 16)
    ours: bool = False

    @property
    def label(self):
        return f"{self.name} {self.workers}x{self.threads}"


FLOORS = [Server("floor", "base", "floor.py", "in process", *shape, clients=(0,)) for shape in ((1, 1), (1, 2), (2, 1))]
SERVERS = [
    # The default, a worker with one thread per core, and what its configuration advises for one camera alone.
    Server("lineproof", "base", "srv_lineproof.py", "inspect", ours=True),
    Server("lineproof", "base", "srv_lineproof.py", "inspect", 1, 2, (1,), ours=True),
    Server("lineproof-oip", "base", "srv_lineproof.py", "oip", ours=True),
    Server("grpcio", "base", "srv_grpcio.py", "oip"),
    Server("mlserver", "mlserver", "srv_mlserver.py", "oip"),
    Server("kserve", "kserve", "srv_kserve.py", "oip"),
    Server("litserve", "litserve", "srv_litserve.py", "http-form"),
    Server("bentoml", "bentoml", "srv_bentoml.py", "http-form"),
    Server("ray", "ray", "srv_ray.py", "http"),
    Server("pytriton", "pytriton", "srv_pytriton.py", "oip"),
]


class Run:
    def __init__(self, a):
        self.a = a
        self.build = blake3(pathlib.Path(a.binary).read_bytes()).hexdigest()[:12]
        self.took = {}  # seconds beside the levels, by server
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "logs").mkdir(exist_ok=True)
        self.out = OUT / f"run-{a.seconds:g}s.jsonl"
        self.current = None

    def done(self):
        """What the result file has, as (repeat, workload, label, clients)."""
        rows = report.read([self.out], self.build) if self.out.exists() else []
        return {(row["repeat"], row["workload"], report.label(row), row["clients"]) for row in rows if "failed" not in row}

    def plan(self):
        """What is left: (repeat, workload, server, clients)."""
        a, done, left = self.a, self.done(), []
        for repeat in range(1, a.repeats + 1):
            for workload in a.workloads.split(","):
                for server in FLOORS + SERVERS:
                    if a.servers and server.name not in a.servers.split(","):
                        continue
                    levels = [n for n in server.clients if n == 0 or n in a.clients]
                    levels = [n for n in levels if (repeat, workload, server.label, n) not in done]
                    if levels:
                        left.append((repeat, workload, server, levels))
        return left

    def seconds_of(self, case):
        _, _, server, levels = case
        return self.took.get(server.label, START_S) + len(levels) * (self.a.seconds + self.a.warm)

    def all(self):
        left = self.plan()
        total = len(left)
        while left:
            case = left.pop(0)
            repeat, workload, server, levels = case
            minutes = (self.seconds_of(case) + sum(map(self.seconds_of, left))) / 60
            print(f"[{total - len(left)}/{total}] repeat {repeat}, {workload}, {server.label}; about {minutes:.0f} min left", flush=True)
            begin = time.monotonic()
            self.one(*case)
            self.took[server.label] = max(0, time.monotonic() - begin - len(levels) * (self.a.seconds + self.a.warm))

    def one(self, repeat, workload, server, levels):
        reason = CACHE / f"{server.venv}.failed"
        if reason.exists():
            return self.failed(repeat, workload, server, f"can't be installed here: {reason.read_text().strip()}")
        row = {"repeat": repeat, **({"build": self.build} if server.ours else {})}
        python = str(CACHE / server.venv / "bin" / "python")
        client = str(CACHE / "base" / "bin" / "python")
        common = [
            "--workload", workload, "--models", str(CACHE / "models"), "--out", str(self.out), "--workers", str(server.workers),
            "--threads", str(server.threads), "--seconds", str(self.a.seconds), "--row", json.dumps(row),
        ]  # fmt: skip
        environment = dict(os.environ, PYTHONPATH=str(CACHE / "proto"))
        data = OUT / "data"
        log = OUT / "logs" / f"{server.label.replace(' ', '-')}-{workload}.log"
        if server.name == "floor":
            command = [client, str(HERE / server.script), *common]
        else:
            command = [
                client, str(HERE / "bench.py"), *common, "--name", server.name, "--kind", server.kind, "--warm", str(self.a.warm),
                "--clients", ",".join(map(str, levels)), "--log", str(log), *(["--pixels"] if server.ours else []),
                "--", python, str(HERE / "servers" / server.script),
            ]  # fmt: skip
        if server.ours:
            environment.update(LINEPROOF_BINARY=str(pathlib.Path(self.a.binary).resolve()), BENCH_DATA=str(data))
        else:
            environment["GLIBC_TUNABLES"] = KEEP_PAGES
        log.unlink(missing_ok=True)
        limit_s = 300 + len(levels) * (self.a.seconds + self.a.warm + 130)
        self.current = subprocess.Popen(command, env=environment, preexec_fn=end_with_parent, stderr=subprocess.PIPE, text=True)
        try:
            _, errors = self.current.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            errors = f"not done after {limit_s:.0f} s"
        finally:
            end_all(first=self.current.pid)
            shutil.rmtree(data, ignore_errors=True)
        if self.current.returncode != 0:
            self.failed(repeat, workload, server, errors.strip().splitlines()[-1] if errors.strip() else "ended without a word")

    def failed(self, repeat, workload, server, why):
        print(f"  {server.label}: {why}", flush=True)
        row = {
            "server": server.name, "workload": workload, "workers": server.workers, "threads": server.threads, "repeat": repeat,
            "failed": why, **({"build": self.build} if server.ours else {}),
        }  # fmt: skip
        with open(self.out, "a") as out:
            out.write(json.dumps(row) + "\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warm", type=float, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--servers", help="names, floor among them; left out: all")
    parser.add_argument("--clients", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 16])
    return parser.parse_args()


def main():
    a = arguments()
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Run(a)
    try:
        run.all()
    finally:
        end_all(first=run.current.pid if run.current else None)
    tables = report.tables(report.read([run.out], run.build))
    (OUT / "tables.md").write_text(tables)
    print(tables)
    print(f"results: {run.out}, tables: {OUT / 'tables.md'}")


if __name__ == "__main__":
    main()
