"""What a user of clients/python does, against a running service: python python_client.py URL FOLDER [CA CERTIFICATE KEY]

FOLDER has part-1.png … part-4.png. With PEM files the service asks for TLS and for a client's certificate. Prints a line for each
thing that went as it should.
"""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import lineproof
from lineproof import NO_RETRY, Camera, Decision, Frame, Health, Refused, Tls, Verdict

url, folder, pem = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
CAMERA = Camera("line-1", "station-1", "cam-1")
IMAGES = {number: (folder / f"part-{number}.png").read_bytes() for number in (1, 2, 3, 4)}


def expect(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def frame(frame_id: str, counter: int, number: int = 1) -> Frame:
    return Frame(CAMERA, frame_id, counter, "demo-part", f"SN-{number}", IMAGES[number], lot="L-7")


def raised(kind: type[Exception], what: str, call: Callable[[], object]) -> Exception:
    try:
        answer = call()
    except kind as error:
        expect(type(error) is kind, f"{what} is {kind.__name__}: {error!s:.160}")
        return error
    sys.exit(f"FAILED: {what} was answered: {answer}")


def refused(kind: type[Refused], reason: str, what: str, wrong: Frame) -> Refused:
    error = raised(kind, what, lambda: client.inspect(wrong))
    assert isinstance(error, Refused)
    expect(error.reason == reason and error.frame_id == wrong.frame_id, f"{what} says {reason} of {error.frame_id}")
    return error


def free_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


# ---- TLS ----
if pem:
    mine = Tls(*pem)
    with lineproof.connect(url, mine) as client:
        expect(client.health() is Health.SERVING, "the service is healthy behind TLS")
        expect(client.inspect(frame("tls-1", 1)).entry_index > 0, "a verdict through TLS with a certificate")
        answers = list(client.stream(frame(f"tls-{number}", number, number) for number in (2, 3)))
        expect(all(isinstance(answer.outcome, Decision) for answer in answers), "a stream through TLS")
    with lineproof.connect(url, Tls(pem[0]), NO_RETRY) as client:
        raised(lineproof.Unavailable, "a line PC without a certificate", lambda: client.inspect(frame("tls-4", 4)))
    with lineproof.connect(url, replace(mine, ca=pem[1]), NO_RETRY) as client:
        raised(lineproof.Unavailable, "a service of another authority", lambda: client.inspect(frame("tls-4", 4)))
    raised(ValueError, "https without an authority", lambda: lineproof.connect(url))
    sys.exit()

# ---- Arguments that cannot work ----
for address in ("127.0.0.1:7443", "http://", "ftp://localhost:1", "http://plant.example:7443", "http://127.0.0.1:1/path"):
    raised(ValueError, f"the address {address}", lambda: lineproof.connect(address))
raised(ValueError, "a certificate without its key", lambda: Tls("ca.pem", certificate="pc.pem"))
raised(ValueError, "a time without a zone", lambda: replace(frame("x", 1), captured_at=datetime(2026, 1, 1)))
with lineproof.connect(free_url(), retry=NO_RETRY) as nobody:
    expect(nobody.health() is Health.AWAY, "where nobody listens, the service is away")
    error = raised(lineproof.Unavailable, "a frame for nobody", lambda: nobody.inspect(frame("x", 1)))
    expect(isinstance(error, Refused) and error.is_outcome_unknown, "its outcome is unknown")
    gave_up = raised(lineproof.GaveUp, "a stream for nobody", lambda: list(nobody.stream([frame("x", 1), frame("y", 2)])))
    expect(isinstance(gave_up, lineproof.GaveUp) and gave_up.unanswered[0].frame_id == "x", "it names its frames")

client = lineproof.connect(url)
expect(client.health() is Health.SERVING, "the service is healthy")
expect(client.health("recipe/machined-surface@1.1.0") is Health.SERVING, "so is the recipe")
expect(client.health("recipe/no-such-recipe@1.0.0") is Health.UNKNOWN, "an unknown recipe is unknown")

# ---- One frame ----
now = datetime.now(timezone.utc)
first = client.inspect(replace(frame("first", 1), captured_at=now, trigger_counter=7, useful_for=timedelta(seconds=20)))
expect(first.verdict in Verdict and first.frame_id == "first", f"a verdict: {first.verdict}")
expect(len(first.leaf_hash) == 32 and not first.is_duplicate, "a leaf hash of a new entry")
expect(first.top_label is not None and first.score == first.top_label.score, "the score is the largest label's")
expect(first.timings is not None and first.timings.total_us >= first.timings.infer_us > 0, "where the time went")
expect(abs((first.decided_at - now).total_seconds()) < 3600, "when it was decided")
expect(first.recipe == "machined-surface@1.1.0" and first.recipe_digest.startswith("blake3:"), "the recipe that decided")
again = client.inspect(frame("first", 1))
expect(again.is_duplicate and again.entry_index == first.entry_index, "the same id with the same bytes is the same entry")
expect(again.leaf_hash == first.leaf_hash and again.verdict is first.verdict, "with the same hash and verdict")
pixels = lineproof.RawLayout(lineproof.PixelFormat.MONO8, 256, 256)
raw = client.inspect(replace(frame("raw", 2), image=bytes(at * 7 % 251 for at in range(256 * 256)), raw=pixels))
expect(not raw.is_duplicate, "raw pixels get a verdict")

# ---- No verdict ----
bad = frame("bad", 3)
error = refused(lineproof.InvalidFrame, "digest_mismatch", "a wrong digest", replace(bad, image_blake3=b"\x07" * 32))
expect(not error.is_outcome_unknown and error.retry_after_s is None, "no decision can exist, and sending it again is of no use")
error = refused(lineproof.InvalidFrame, "bad_request", "a short digest", replace(bad, image_blake3=b"\x07" * 31))
expect(error.fields == ("image_blake3",), "the wrong field is named")
refused(lineproof.InvalidFrame, "bad_frame", "no image", replace(bad, image=b"GIF89a and so on"))
refused(lineproof.InvalidFrame, "", "a frame that is too long", replace(bad, image=bytes(40 << 20)))
refused(lineproof.UnknownSource, "unknown_station", "an unknown camera", replace(bad, camera=Camera("line-1", "station-1", "cam-9")))
refused(lineproof.NotServed, "no_recipe", "an unknown product", replace(bad, product="other"))
refused(lineproof.FrameIdReused, "frame_id_reused", "an id used for other bytes", frame("first", 1, 2))
error = refused(lineproof.DeadlineExceeded, "deadline", "a frame whose time is over", replace(bad, useful_for=timedelta(0)))
expect(error.code is grpc.StatusCode.DEADLINE_EXCEEDED, "the code is the service's")
late = lineproof.Retry(answer_within_s=1e-6, reconnect_for_s=0)
raised(lineproof.DeadlineExceeded, "an answer that does not come in time", lambda: client.inspect(bad, retry=late))

# ---- A stream ----
mixed = [frame(f"stream-{number}", 10 + number, number) for number in (1, 2, 3, 4)]
mixed.insert(1, replace(frame("stream-wrong", 20), image_blake3=b"\x07" * 32))
mixed.insert(3, replace(frame("stream-long", 21), image=bytes(40 << 20)))
answers = list(client.stream(mixed))
expect([answer.frame for answer in answers] == mixed, "every frame has its answer, in the order of the frames")
kinds = [type(answer.outcome).__name__ for answer in answers]
expect(kinds == ["Decision", "InvalidFrame", "Decision", "InvalidFrame", "Decision", "Decision"], f"a refused frame ends no stream: {kinds}")
expect(list(client.stream([])) == [], "a stream without frames")

seen = threading.Event()


def waiting() -> Iterator[Frame]:
    yield frame("patient-1", 30, 1)
    if not seen.wait(60):
        raise TimeoutError("the first answer did not come before the second frame")
    yield frame("patient-2", 31, 2)


for answer in client.stream(waiting()):
    seen.set()
expect(answer.frame.frame_id == "patient-2", "an answer does not wait for the camera's next frame")


def broken() -> Iterator[Frame]:
    yield frame("broken-1", 32, 3)
    raise RuntimeError("the camera is gone")


before: list[lineproof.Answer] = []
raised(RuntimeError, "a camera that fails", lambda: before.extend(client.stream(broken())))
expect(len(before) == 1, "what it gave before is answered")
raised(ValueError, "an id that is under way", lambda: list(client.stream([frame("twice", 33, 4)] * 2)))
for answer in client.stream(frame(f"left-{number}", 40 + number, 1) for number in range(1, 100)):
    break
expect(isinstance(client.inspect(frame("left-1", 41)), Decision), "a stream that its reader leaves does no harm")
client.close()
print(f"done {first.entry_index}")
