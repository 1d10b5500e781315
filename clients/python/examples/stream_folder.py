"""A line PC in a hundred lines: sends every image of a folder and prints its verdict.

    python stream_folder.py frames/ --product demo-part

It survives a restart of the service: frames without an answer are sent again under the same ids, and the service answers a frame
it knows with the entry it has. Ends with 0 when every image got a verdict, 1 when some did not, 2 when the arguments cannot
work. `lineproof camera` does the same and more: it keeps its counters over its own restarts and closes periods.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import lineproof

ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Send the images of a folder, by name, and show the verdicts.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:7443", help="http://HOST:PORT on this machine, else https://")
    parser.add_argument("--ca", help="PEM file of the authority that signed the service's certificate")
    parser.add_argument("--cert", help="PEM file of this line PC's certificate")
    parser.add_argument("--key", help="PEM file of this line PC's key")
    parser.add_argument("--line", default="line-1")
    parser.add_argument("--station", default="station-1")
    parser.add_argument("--camera", default="cam-1")
    parser.add_argument("--product", default="demo-part")
    parser.add_argument("--lot", default="")
    parser.add_argument("--in-flight", type=int, default=4, help="frames sent and not yet answered")
    parser.add_argument("--first-counter", type=int, default=1, help="number of the first frame")
    parser.add_argument("--reconnect-for-s", type=float, default=300.0, help="stop when the service is away for longer")
    return parser.parse_args()


class Folder:
    """A folder as a camera: its images as frames, by name. Counts those that never became one."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.camera = lineproof.Camera(args.line, args.station, args.camera)
        self.product, self.lot, self.counter = args.product, args.lot, args.first_counter
        self.paths = sorted(path for path in args.folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
        self.unsent = 0

    def frames(self) -> Iterator[lineproof.Frame]:
        for path in self.paths:
            try:
                image, changed = path.read_bytes(), path.stat().st_mtime
            except OSError as error:
                self.unsent += 1
                print(f"not sent: {path.name}: {error}", flush=True)
                continue
            yield lineproof.Frame(
                self.camera,
                frame_id=lineproof.frame_id_of(path.name, image),
                frame_counter=self.counter,
                product=self.product,
                serial=path.stem,
                lot=self.lot,
                image=image,
                captured_at=datetime.fromtimestamp(changed, timezone.utc),
            )
            self.counter += 1


def show(answer: lineproof.Answer) -> None:
    start = f"{answer.frame.frame_counter:>7}  {answer.frame.serial:<24}"
    outcome = answer.outcome
    if isinstance(outcome, lineproof.Refused):
        print(f"{start} no verdict    {outcome}", flush=True)
        return
    label = outcome.top_label.label if outcome.top_label else ""
    again = "  already decided" if outcome.is_duplicate else ""
    print(
        f"{start} {outcome.verdict!s:<13} {outcome.score:>6.3f} {label:<10} {answer.latency_s * 1e3:>8.1f} ms"
        f"  entry {outcome.entry_index}{again}",
        flush=True,
    )


def note(event: lineproof.Event) -> None:
    """Says what goes on while no verdict comes."""
    if isinstance(event, lineproof.Reconnecting):
        what = f"connection lost ({event.why}); {event.pending} parts wait"
    else:
        what = f"{event.frame.frame_id}: {event.refused}"
    print(f"{what}, again in {event.after_s:.1f} s", file=sys.stderr, flush=True)


def main() -> int:
    args = arguments()
    try:
        tls = lineproof.Tls(args.ca, args.cert, args.key) if args.ca else None
        if tls is None and (args.cert or args.key):
            raise ValueError("--cert and --key need --ca")
        folder = Folder(args)
        client = lineproof.connect(args.server, tls, lineproof.Retry(reconnect_for_s=args.reconnect_for_s))
        answers = client.stream(folder.frames(), in_flight=args.in_flight, on_event=note)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    verdicts, refused = Counter[lineproof.Verdict](), Counter[str]()
    duplicates, sent_again, unanswered, began = 0, 0, 0, time.monotonic()
    with client:
        try:
            for answer in answers:
                show(answer)
                sent_again += answer.attempts - 1
                if isinstance(answer.outcome, lineproof.Refused):
                    refused[f"{answer.outcome.code.name} {answer.outcome.reason}"] += 1
                else:
                    verdicts[answer.outcome.verdict] += 1
                    duplicates += answer.outcome.is_duplicate
        except lineproof.GaveUp as gave_up:
            # Frames that were under way, and files that were not read yet.
            unanswered = len(folder.paths) - folder.unsent - verdicts.total() - refused.total()
            print(f"gave up: {gave_up.why}", file=sys.stderr)

    elapsed_s = time.monotonic() - began
    print(f"{len(folder.paths)} parts in {elapsed_s:.1f} s, {verdicts.total() / max(elapsed_s, 1e-9):.1f}/s")
    print("  verdicts     " + ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in lineproof.Verdict))
    for reason, count in refused.items():
        print(f"  no verdict   {count} refused: {reason}")
    if folder.unsent:
        print(f"  no verdict   {folder.unsent} not sent")
    if unanswered:
        print(f"  no verdict   {unanswered} not answered; run again to learn what became of them")
    if sent_again or duplicates:
        print(f"  on the way   {sent_again} sent again, {duplicates} already decided")
    return 0 if verdicts.total() == len(folder.paths) else 1


if __name__ == "__main__":
    sys.exit(main())
