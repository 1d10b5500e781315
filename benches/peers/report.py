"""Markdown tables of result files: medians over the repeats. python report.py FILE.jsonl..."""

import collections
import json
import statistics
import sys

from workloads import WORKLOADS

# Rows during which others used more of the machine than this say little about rate and latency.
OTHERS_PCT_MAX = 20


def label(row):
    return f"{row['server']} {row['workers']}x{row['threads']}"


def read(paths, build=None):
    """The rows of the files; of ours those of `build`, or of the last build there is."""
    rows = [json.loads(line) for path in paths for line in open(path)]
    if build is None:
        build = next((row["build"] for row in reversed(rows) if "build" in row), None)
    return [row for row in rows if row.get("build", build) == build]


def median(rows, key):
    values = [row[key] for row in rows if row.get(key) is not None]
    return statistics.median(values) if values else None


def shown(value, digits=1):
    return "" if value is None else f"{value:,.{digits}f}"


def tables(rows):
    return "\n".join(filter(None, (table(workload, rows) for workload in WORKLOADS))) + stage_table(rows)


def table(workload, rows):
    """One workload: the floor, then every server by the number of clients."""
    cases, failed = collections.defaultdict(list), {}
    for row in rows:
        if row["workload"] == workload:
            if "failed" in row:
                failed[label(row)] = row["failed"]
            else:
                cases[row["clients"], label(row)].append(row)
    if not cases and not failed:
        return None
    text = (
        f"\n### {workload}\n\n| clients | server, workers x threads | requests/s | lowest to highest | p50 ms | p99 ms | server CPU ms/request "
        "| memory MB (PSS) | peak RSS, summed MB | errors | others' CPU % |\n|" + "---|" * 11 + "\n"
    )
    for (clients, name), of in sorted(cases.items(), key=lambda case: case[0][0]):
        failed.pop(name, None)
        rates = [row["rps"] for row in of]
        others = max((row.get("other_cpu_pct", 0) for row in of), default=0)
        text += (
            f"| {clients or ''} | {name} | {shown(median(of, 'rps'))} | {shown(min(rates))} to {shown(max(rates))} of {len(of)} "
            f"| {shown(median(of, 'p50_ms'), 2)} | {shown(median(of, 'p99_ms'), 2)} | {shown(median(of, 'server_cpu_ms'), 2)} "
            f"| {shown(median(of, 'pss_mb'), 0)} | {shown(median(of, 'rss_peak_mb'), 0)} | {sum(row['errors'] for row in of)} "
            f"| {shown(others, 0) if clients else ''}{' (!)' if others > OTHERS_PCT_MAX else ''} |\n"
        )
    for name, why in failed.items():
        text += f"\n{name}: not measured, {why}\n"
    return text


def stage_table(rows):
    """Where our own watch says the time went."""
    cases = collections.defaultdict(list)
    for row in rows:
        if row.get("stages_p50_us"):
            cases[row["workload"], label(row), row["clients"]].append(row["stages_p50_us"])
    if not cases:
        return ""
    stages = list(next(iter(cases.values()))[0])
    text = "\n### Our own watch, p50 in ms\n\n| workload | server | clients | " + " | ".join(stage.removesuffix("_us") for stage in stages)
    text += " |\n|" + "---|" * (3 + len(stages)) + "\n"
    for (workload, name, clients), of in cases.items():
        values = " | ".join(shown(median(of, stage) / 1e3, 2) for stage in stages)
        text += f"| {workload} | {name} | {clients} | {values} |\n"
    return text


if __name__ == "__main__":
    print(tables(read(sys.argv[1:])))
