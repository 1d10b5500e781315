#!/usr/bin/env python3
"""Checks Lineproof's evidence with nothing of Lineproof: exports, passports and logs.

    lineproof_verify.py EVIDENCE LOG.vkey [HANDOVER…]
        EVIDENCE: export.zip, passport.tlog-proof, answer.challenge, or a data directory
        HANDOVER: from a key of LOG.vkey to the one after it, as the plant gives it when its log's key has changed
    lineproof_verify.py --batch               each line of standard input: EVIDENCE, tab, LOG.vkey

Exit status: 0 all is proven, 1 something is wrong, 2 used wrongly. Needs Python 3.9 and the package `cryptography`.
Written from docs/spec alone; steps are numbered as in export.md, passport.md and log.md. It reads no recipes and
renders no tables, so of the last step of an export it checks the counts.
"""

import base64
import bisect
import decimal
import functools
import hashlib
import json
import pathlib
import re
import struct
import sys
import zlib
from collections import Counter
from datetime import date

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    print("a package is missing: python3 -m pip install cryptography", file=sys.stderr)
    sys.exit(2)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
decimal.getcontext().prec = 200  # the longest 32-bit float has 112 digits


class Refused(Exception):
    """What is wrong with the evidence."""


class Usage(Exception):
    """What is wrong with the command."""


def need(condition, why):
    if not condition:
        raise Refused(why)


# ---- How values are written: forms.md ----


def sha256(data):
    return hashlib.sha256(data).digest()


def unbase64(text, length=None):
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data) == (text if isinstance(text, bytes) else text.encode()), "base64 that no encoder writes")
    need(length in (None, len(data)), f"{len(data)} bytes where {length} belong")
    return data


def whole(text):
    need(re.fullmatch("0|[1-9][0-9]{0,15}", text) and int(text) < 2**53, f"no whole number below 2^53: {text[:40]!r}")
    return int(text)


def lines(data, what):
    need(data == b"" or data.endswith(b"\n"), f"the last line of {what} is cut off")
    return data.split(b"\n")[:-1]

DECODER = json.JSONDecoder(parse_int=whole, parse_float=whole, parse_constant=whole)
ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def read_json(data, what, form=None):
    """JSON that is written in the one way forms.md allows, and holds what `form` says."""
    try:
        value = DECODER.decode(data.decode())
        need(ENCODER.encode(value).encode() == data and is_plain(value, 16), f"{what} is written in another way")
    except (ValueError, RecursionError) as error:
        raise Refused(f"{what} is no JSON: {error}") from None
    need(form is None or fits(value, form), f"{what} does not hold what belongs there")
    return value


def is_plain(value, depth):
    """No null, and objects and lists at most so deep."""
    if type(value) not in (dict, list):
        return value is not None
    return depth > 0 and all(is_plain(item, depth - 1) for item in (value.values() if type(value) is dict else value))


@functools.lru_cache(maxsize=4096)
def is_day(text):
    try:
        return bool(date(*map(int, text.split("-"))))
    except ValueError:
        return False

TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([01][0-9]|2[0-3])(:[0-5][0-9]){2}\.[0-9]{9}Z").fullmatch


def is_time(text):
    match = TIME(text)
    return match and "1970" <= text <= "2262-04-11T23:47:16.854775807Z" and is_day(match[1])


def float_of(bits):
    return struct.unpack(">f", bits.to_bytes(4, "big"))[0]


def nearest(bits, digits):
    """The decimal of so many digits that is nearest to a positive float, if it reads back as that float."""
    value, above = float_of(bits), 2.0**128 if bits == 0x7F7FFFFF else float_of(bits + 1)
    low, high = (decimal.Decimal((value + other) / 2) for other in (float_of(bits - 1), above))
    value = decimal.Decimal(value)
    unit = decimal.Decimal(1).scaleb(value.adjusted() + 1 - digits)
    down = value.quantize(unit, decimal.ROUND_FLOOR)
    back = [near for near in (down, down + unit) if low < near < high or bits % 2 == 0 and near in (low, high)]
    return format(min(back, key=lambda near: (abs(near - value), -near)).normalize(), "f") if back else None


@functools.lru_cache(maxsize=1 << 16)
def score(text):
    """The value of `0x<8 hex> <decimal>`, where the decimal is the shortest that reads back as the float."""
    match = re.fullmatch("0x([0-9a-f]{8}) (-?)([0-9.]{1,60})", text)
    need(match, f"no score: {text[:60]!r}")
    bits, digits = int(match[1], 16), len(match[3].replace(".", "").strip("0"))
    size = bits & 0x7FFFFFFF
    need(size < 0x7F800000 and bits >> 31 == len(match[2]), "a score that is not finite, or has another sign")
    shortest = size and digits and nearest(size, digits) == match[3] and (digits == 1 or not nearest(size, digits - 1))
    need(shortest or text == "0x00000000 0", f"a score with another decimal than its bits say: {text!r}")
    return float_of(bits)


RANGE = re.compile("(0|[1-9][0-9]{0,15})(?:-([1-9][0-9]{0,15}))?").fullmatch


def is_ranges(text):
    """Entry indexes in ascending order, each run of them as one range."""
    before = -2
    for match in map(RANGE, text.split(" ")):
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
        if not before + 1 < first < 2**53 or not (first < last < 2**53 if match[2] else True):
            return False
        before = last
    return True


# ---- What belongs where: entry.md, export.md ----

LEAVES = {name: re.compile(pattern, re.DOTALL).fullmatch for name, pattern in {
    "text": ".*", "name": "[A-Za-z0-9._:-]{1,64}", "recipe-name": "[A-Za-z0-9._+@-]{1,130}", "hex": "[0-9a-f]{64}",
    "blake3": "blake3:[0-9a-f]{64}", "sha256": "sha256:[0-9a-f]{64}", "salt": "[0-9a-f]{32}",
    "part": "[^\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]+"}.items()}
PART = LEAVES["part"]
LEAVES.update(time=is_time, ranges=is_ranges, score=lambda text: score(text) is not None,
              part=lambda text: PART(text) and len(text.encode()) <= 128)
HEAD = "clock=synchronised|free|stepped kind=text time=time v=whole"
FORMS = {
    "decision": f"{HEAD} calibration?=blake3 camera=name captured?=time frame=frame image=image line=name model=model"
    " private=private product=name quality=quality reasons?=text+ recipe=recipe-of runtime=runtime scores=scores"
    " software=text station=name verdict=OK|NOT_OK|NOT_DECIDABLE",
    "frame": "counter=whole id=name trigger?=whole",
    "image": "archive=text bytes=whole encoded=blake3 format=text height=u32 pfnc=text pixels=blake3 width=u32",
    "model": "digest=blake3 version=text",
    "private": "client?=sha256 lot?=sha256 serial?=sha256",
    "quality": "focus=score mean=score saturated=score",
    "recipe-of": "digest=blake3 name=recipe-name",
    "runtime": "batch=u32 cpu=text optimisation=text provider=text threads=u32 version=text",
    "scores": "comparator=>=|> decision=score labels=label* reject?=score review?=score",
    "label": "at?=box boxes?=u32 defect?=false label=text reject?=score review?=score score=score",
    "box": "height=u32 width=u32 x=u32 y=u32",
    "gap": f"{HEAD} camera=name count=whole first?=whole frame?=name last?=whole line=name station=name"
    " reason=counter_jump|overload|deadline|digest_mismatch|bad_frame|inference_fault|no_recipe",
    "recipe": f"{HEAD} calibration?=blake3 event=registered|approved|activated|retired model=blake3 recipe=recipe-of",
    "access": f"{HEAD} count?=whole event=passport|export|frame_id_reused|read|changed|refused|login_failed|configured"
    " index?=whole method?=text object?=text private=private reason?=text",
    "key": f"{HEAD} purpose=text vkey=text",
    "start": f"{HEAD} recovered=whole software=text torn_bytes=whole",
    "period_close": f"{HEAD} announced=announced camera=name corrects?=whole decided=whole end=whole gaps=whole line=name"
    " lost_frames=whole missing?=range+ missing_frames=whole previous?=whole private=private since=whole station=name",
    "announced": "first=whole frames_per_part?=whole from?=time last=whole lost?=range+ parts?=whole period=name"
    " restarted?=true to?=time unseen?=whole",
    "range": "first=whole last=whole",
    "retention": f"{HEAD} before?=time class?=text destroyed?=destroyed entries?=ranges event=erased|deleted|held|released"
    " from?=time hold?=whole kept?=whole line?=name private=private product?=name rule=text to?=time",
    "replay": f"{HEAD} challenge?=sha256 differs?=ranges eps=score exact?=ranges largest?=score not_replayable?=not-replayable"
    " runtime?=replay-runtime software=text within?=ranges",
    "not-replayable": "failed?=ranges image_damaged?=ranges image_gone?=ranges no_model?=ranges no_recipe?=ranges"
    " not_archived?=ranges other_provider?=ranges",
    "replay-runtime": "cpu=text version=text",
    "destroyed": "client?=whole images?=whole lot?=whole packs?=whole serial?=whole",
    "envelope": "payload=text payloadType=application/vnd.in-toto+json signatures=signature*",
    "signature": "keyid=text sig=text",
    "statement": "_type=https://in-toto.io/Statement/v1 predicate=predicate predicateType=urn:lineproof:export:1"
    " subject=subject*",
    "subject": "digest=digest name=text",
    "digest": "sha256=hex",
    "predicate": "absent=absent checkpoint=checkpoint container=sha256 counts=counts format=whole selection=selection"
    " software=text",
    "absent": "calibrations=blake3* model_cards=blake3* recipes=blake3*",
    "checkpoint": "origin=text root=sha256 size=whole",
    "counts": "decisions=whole entries=whole gap_frames=whole gaps=whole not_decidable=whole not_ok=whole ok=whole"
    " openings=whole other=whole",
    "selection": "camera?=name from?=time line?=name lot?=part part?=part product?=name recipe?=recipe-name"
    " score_max?=score score_min?=score station?=name to?=time verdicts?=verdict+",
    "verdict": "OK|NOT_OK|NOT_DECIDABLE",
    "export-opening": "field=lot|serial index=whole salt=salt value=text",
    "passport-opening": "field=client|lot|serial salt=salt value=text",
}


@functools.lru_cache(maxsize=None)
def members(form):
    pairs = [field.partition("=")[::2] for field in FORMS[form].split()]
    rules = {key.rstrip("?"): rule for key, rule in pairs}
    return rules, {key for key, _ in pairs if key[-1] != "?"}


def fits(value, rule):
    """Whether a value is what a rule names: an object of FORMS, a list of them, a leaf, or one of some words."""
    if rule in FORMS and "=" in FORMS[rule]:
        rules, required = members(rule)
        return type(value) is dict and required <= value.keys() <= rules.keys() and all(
            fits(item, rules[key]) for key, item in value.items())
    if rule[-1] in "*+":
        return type(value) is list and len(value) >= (rule[-1] == "+") and all(fits(item, rule[:-1]) for item in value)
    if rule in ("whole", "u32"):
        return type(value) is int and (rule == "whole" or value < 2**32)
    if rule in ("false", "true"):
        return value is (rule == "true")
    if type(value) is not str:
        return False
    return bool(LEAVES[rule](value)) if rule in LEAVES else value in FORMS.get(rule, rule).split("|")


def read_entry(data):
    """An entry as entry.md says; a decision also agrees with itself."""
    need(0 < len(data) <= 8192, "an entry of no byte, or of more than 8192")
    entry = read_json(data, "an entry")
    need(type(entry) is dict and type(entry.get("kind")) is str and type(entry.get("v")) is int, "no entry: no kind or v")
    need(1 <= entry["v"] <= 3, f"an entry of version {entry['v']}; this check knows 1 to 3")
    kind = entry["kind"]
    if kind in ("decision", "gap", "recipe", "access", "key", "start", "period_close", "retention"):
        need(fits(entry, kind), f"a {kind} entry does not hold what belongs there")
    need("time" not in entry or fits(entry["time"], "time"), "an entry whose time is no time")
    if kind == "decision":
        check_decision(entry)
    return entry


def check_decision(entry):
    """Step 5 of export.md: scores, thresholds, reasons and verdict tell one story."""
    scores, labels = entry["scores"], entry["scores"]["labels"]
    is_shared, reaches = "reject" in scores, float.__ge__ if scores["comparator"] == ">=" else float.__gt__
    need(is_shared == ("review" in scores), "a shared threshold without the other")
    need(entry["v"] > 1 or not is_shared and all("defect" not in label for label in labels), "version 1 shares nothing")
    need((entry["v"] == 3) == any("at" in label or "boxes" in label for label in labels), "version 3 says where, no other")
    found = []
    for label in labels:
        check_place(label, entry["image"])
        is_own = "reject" in label
        need(is_own == ("review" in label), "a threshold without the other")
        need("defect" not in label or is_shared and not is_own, "a label that is marked and needs no mark")
        if is_own or is_shared and "defect" not in label:
            value, thresholds = score(label["score"]), label if is_own else scores
            reject, review = score(thresholds["reject"]), score(thresholds["review"])
            need(review <= reject, "a review threshold above the reject threshold")
            outcome = "reject" if reaches(value, reject) else "review" if reaches(value, review) else "pass"
            found.append((value, outcome, label["label"]))
    need(found, "no label is a defect")
    need(score(scores["decision"]) == max(found)[0], "the decision score is not the largest score of a defect")
    outcomes, is_sent, may_be_sent = {outcome for _, outcome, _ in found}, False, False
    for reason in entry.get("reasons", []):
        code, colon, label = reason.partition(":")
        if colon and code in ("reject", "review"):
            need((code, label) in [(outcome, name) for _, outcome, name in found], f"no score gives {reason}")
        elif colon and code == "quality" or reason == "top_score_min":
            is_sent = True
        else:
            may_be_sent = True
    expected = "NOT_OK" if "reject" in outcomes else "NOT_DECIDABLE" if "review" in outcomes else "OK"
    expected = "NOT_DECIDABLE" if is_sent or may_be_sent and entry["verdict"] == "NOT_DECIDABLE" else expected
    need(entry["verdict"] == expected, f"the scores say {expected}, the entry says {entry['verdict']}")


def check_place(label, image):
    """The box that gave a score lies in the image, and is there exactly if boxes were found."""
    at = label.get("at")
    if at:
        for start, side in (("x", "width"), ("y", "height")):
            need(0 < at[side] <= image[side] - at[start], f"a box of {label['label']} that does not lie in the image")
    need("boxes" not in label or (label["boxes"] > 0) == bool(at), f"boxes of {label['label']} that are counted wrongly")


def check_opening(opening, entry, what):
    private = entry["private"] if entry["kind"] in ("decision", "access", "period_close", "retention") else {}
    commitment = sha256(bytes.fromhex(opening["salt"]) + opening["value"].encode())
    need(private.get(opening["field"]) == "sha256:" + commitment.hex(), f"the {opening['field']} of {what} is another")


# ---- Closed periods: period.md ----


def check_close(index, close):
    """A close agrees with itself."""
    said, missing = close["announced"], close.get("missing", [])
    lost, first, last = said.get("lost", []), said["first"], said["last"]
    need(first <= last and said.get("from", "") <= said.get("to", "~"), f"the period in entry {index} runs backwards")
    for ranges in (lost, missing):
        need(len(ranges) <= 48 and all(first <= a["first"] <= a["last"] <= last for a in ranges)
             and all(a["last"] + 1 < b["first"] for a, b in zip(ranges, ranges[1:])), f"entry {index} has ranges out of order")
    parts, unseen = said.get("parts"), said.get("unseen")
    need(said.keys().isdisjoint({"frames_per_part", "unseen"}) if parts is None
         else 0 < said.get("frames_per_part", 1) and parts * said.get("frames_per_part", 1) < 2**53
         and (unseen is None or 0 < unseen <= parts), f"the parts in entry {index} contradict themselves")
    listed, called = (sum(a["last"] - a["first"] + 1 for a in ranges) for ranges in (missing, lost))
    need(close["decided"] + close["gaps"] + close["lost_frames"] + close["missing_frames"] == last - first + 1
         and (listed == close["missing_frames"] if len(missing) < 48 else listed <= close["missing_frames"])
         and close["lost_frames"] <= called and not any(touch(a, b) for a in lost for b in missing),
         f"the frames in entry {index} do not add up to those announced")
    need(close["since"] <= close["end"] <= index and max(close.get("previous", -1), close.get("corrects", -1)) < index
         and ("corrects" in close or index - close["end"] <= 65_536), f"entry {index} does not say truly what it counted")


def touch(a, b):
    return a["first"] <= b["last"] and b["first"] <= a["last"]


def place(entry):
    return entry["line"], entry["station"], entry["camera"]


def check_follows(index, close, previous):
    """A close goes on where the camera's close before it ended."""
    goes_on = close["announced"]["first"] == previous["announced"]["last"] + 1 and close["since"] <= previous["end"]
    fits = close["since"] == previous["end"] if "restarted" in close["announced"] else goes_on
    need(previous["kind"] == "period_close" and "corrects" not in previous and place(close) == place(previous)
         and previous["end"] <= close["end"] and fits, f"entry {index} does not go on where the period before ended")


def check_corrects(index, close, original):
    said, before = close["announced"], original["announced"]
    same = all(close.get(key) == original.get(key) for key in ("since", "end", "previous", "decided", "gaps"))
    need(same and all(said.get(key) == before.get(key) for key in ("first", "last", "restarted", "period"))
         and "corrects" not in original and place(close) == place(original), f"entry {index} does not fit what it corrects")


def count(close, marks):
    """Decided counters, those noted as gaps, and neither, by the entries that a close counts: (index, first, last, is_decided)."""
    first, last = close["announced"]["first"], close["announced"]["last"]
    at = [bisect.bisect_left(marks, (bound,)) for bound in (close["since"], close["end"])]
    marks = marks[at[0] : max(at)]
    decided = union((a, b) for _, a, b, is_decided in marks if is_decided)
    gaps = union((a, b) for _, a, b, is_decided in marks if not is_decided)
    decided, rest = split_at(decided, [(first, last)])
    gaps, rest = split_at(gaps, rest)
    return decided, gaps, rest


def union(ranges):
    merged = []
    for a, b in sorted(ranges):
        if merged and a <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(b, merged[-1][1])
        else:
            merged.append((a, b))
    return merged


def split_at(ranges, whole_ranges):
    """What of the whole ranges lies in `ranges`, and what does not."""
    inside, outside = [], []
    for first, last in whole_ranges:
        for a, b in ranges[max(0, bisect.bisect_left(ranges, (first,)) - 1) :]:
            if a > last or first > last:
                break
            if b < first:
                continue
            if first < a:
                outside.append((first, a - 1))
            inside.append((max(a, first), min(b, last)))
            first = b + 1
        if first <= last:
            outside.append((first, last))
    return inside, outside


def size_of(ranges):
    return sum(b - a + 1 for a, b in ranges)


def says(close, decided, gaps, rest):
    """Whether a close says what was counted."""
    lost, missing = split_at([(a["first"], a["last"]) for a in close["announced"].get("lost", [])], rest)
    listed = [(a["first"], a["last"]) for a in close.get("missing", [])]
    return (close["decided"], close["gaps"], close["lost_frames"], close["missing_frames"]) == tuple(
        map(size_of, (decided, gaps, lost, missing))) and listed == missing[:48]


def marks_of(entries):
    """What decisions and gaps say of each camera's counter, in order."""
    marks = {}
    for index, entry in entries:
        if entry["kind"] == "decision":
            counter = entry["frame"]["counter"]
            marks.setdefault(place(entry), []).append((index, counter, counter, True))
        elif entry["kind"] == "gap" and "first" in entry and "last" in entry and 0 <= entry["last"] - entry["first"] < entry["count"]:
            marks.setdefault(place(entry), []).append((index, entry["first"], entry["last"], False))
    return marks


def need_complete(closes):
    """Nothing is missing in the periods, as the line now says."""
    latest = {close.get("corrects", index): (index, close) for index, close in closes}
    frames = 0
    for index, close in sorted(latest.values(), key=lambda pair: pair[0]):
        said = close["announced"]
        frames += said["last"] - said["first"] + 1
        short = (said.get("parts", 0) - said.get("unseen", 0)) * said.get("frames_per_part", 1) - (said["last"] - said["first"] + 1)
        ranges = ", ".join(f"{a['first']}-{a['last']}" for a in close.get("missing", [])[:8])
        need(close["missing_frames"] == 0, f"period {said['period']} of {' / '.join(place(close))} is not complete: of the announced"
             f" frames {ranges} there is no decision, no gap and no word from the line (entry {index})")
        need(short <= 0, f"period {said['period']} of {' / '.join(place(close))} is not complete: the line counted parts for"
             f" {short} frames more than its camera took (entry {index})")
    return len(latest), frames


# ---- Keys and checkpoints: c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature ----

KEY_NAME = r"[^\s+]+"


def is_point(key):
    """Whether 32 bytes are a point of edwards25519 in its one spelling (RFC 8032, 5.1.3), and not of small order."""
    prime, number = 2**255 - 19, int.from_bytes(key, "little")
    y, sign = number & (1 << 255) - 1, number >> 255
    if len(key) != 32 or y >= prime:
        return False
    d = -121665 * pow(121666, prime - 2, prime)
    square = (y * y - 1) * pow(d * y * y + 1, prime - 2, prime) % prime
    if pow(square, (prime - 1) // 2, prime) not in (0, 1) or (square == 0 and sign):
        return False
    # Doubled three times, a point of small order is the neutral one, whose y is 1; y alone tells y after doubling.
    for _ in range(3):
        x2 = (y * y - 1) * pow(d * y * y + 1, prime - 2, prime) % prime
        y = (y * y + x2) * pow(2 - (y * y - x2), prime - 2, prime) % prime
    return y != 1


def read_keys(text):
    """The keys of a vkey file by name and id; a key is its line, its kind and its public key."""
    keys, rows = {}, [line.strip() for line in text.lstrip("\ufeff").split("\n")]
    rows = [line for line in rows if line and line[0] != "#"]
    if not 0 < len(rows) <= 64:
        raise Usage("the key file holds no key, or more than 64")
    for line in rows:
        match = re.fullmatch(rf"({KEY_NAME})\+([0-9a-f]{{8}})\+([A-Za-z0-9+/=]{{44}})", line)
        try:
            material = unbase64(match[3], 33) if match else b"?"
        except (Refused, ValueError):
            material = b"?"
        if material[0] not in (1, 4) or not is_point(material[1:]) or len(line.encode()) > 512 or sha256(match[1].encode() + b"\n" + material)[:4].hex() != match[2]:
            raise Usage(f"no Ed25519 vkey, or mistyped: {line[:80]!r}")
        public = Ed25519PublicKey.from_public_bytes(material[1:])
        keys[f"{match[1]}+{match[2]}"] = (line, material[0], public)
    return keys


def check_signature(key, signature, message, what):
    try:
        key.verify(signature, message)
    except InvalidSignature:
        raise Refused(f"the signature of {what} does not verify") from None


def open_checkpoint(note, keys):
    """Origin, size and root of a checkpoint, and the name of the given log key that signed it."""
    need(len(note) <= 128 * KIB and not re.search(rb"[\0-\x09\x0b-\x1f]", note), "the checkpoint is too long, or no text")
    text, blank, signatures = note.decode().rpartition("\n\n")
    need(blank and signatures.endswith("\n"), "the checkpoint is no signed note")
    rows, signer = text.split("\n"), None
    need(len(rows) >= 3 and all(rows), "the checkpoint has an empty line, or too few")
    need(signatures.count("\n") <= 64, "the checkpoint has more than 64 signatures")
    for line in signatures[:-1].split("\n"):
        match = re.fullmatch(rf"\u2014 ({KEY_NAME}) ([A-Za-z0-9+/=]+)", line)
        signature = unbase64(match[2]) if match else b""
        need(len(signature) > 4, "the checkpoint has a damaged signature line")
        name, message, signature = f"{match[1]}+{signature[:4].hex()}", text + "\n", signature[4:]
        if name in keys:
            _, kind, public = keys[name]
            if kind == 4:
                time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
                need(0 < time < 1 << 63, f"the time of the cosignature by {name} is none")
                message = f"cosignature/v1\ntime {time}\n{message}"
            check_signature(public, signature, message.encode(), f"the checkpoint by {name}")
            signer = name if kind == 1 and match[1] == rows[0] else signer
    need(signer, f"none of the given keys has signed the checkpoint of the log {rows[0]!r}")
    return rows[0], whole(rows[1]), unbase64(rows[2], 32), signer


# ---- The Merkle tree: RFC 6962, section 2.1 ----


def leaf_hash(entry):
    return sha256(b"\0" + entry)


def parent(left, right):
    return sha256(b"\1" + left + right)


def split(size):
    return 1 << (size - 1).bit_length() - 1


def root_of_some(indexes, leaves, size, proof):
    """The root from the leaves at some indexes and the hashes that lead from them to it, as export.md says."""
    rest = iter(proof)

    def root(a, b, low, high):
        if low == high:
            return next(rest)
        if b - a == 1:
            return leaves[low]
        middle = a + split(b - a)
        cut = bisect.bisect_left(indexes, middle, low, high)
        return parent(root(a, middle, low, cut), root(middle, b, cut, high))

    try:
        result = root(0, size, 0, len(indexes))
    except StopIteration:
        raise Refused("the proof ends too early") from None
    need(next(rest, None) is None, "the proof has hashes that nothing needs")
    return result


def root_of_one(leaf, index, size, path):
    """The root that an inclusion proof leads to."""
    if size == 1 or not path:
        need(size == 1 and not path, "the proof is too long or too short")
        return leaf
    middle = split(size)
    if index < middle:
        return parent(root_of_one(leaf, index, middle, path[:-1]), path[-1])
    return parent(path[-1], root_of_one(leaf, index - middle, size - middle, path[:-1]))


def need_one_history(old, old_root, new, new_root, proof):
    """The tree of `new` leaves begins with that of `old`: a consistency proof."""
    rest = iter(proof)

    def roots(old, new, is_whole):
        if old == new:
            both = old_root if is_whole else next(rest)
            return both, both
        middle = split(new)
        if old <= middle:
            first, second = roots(old, middle, is_whole)
            return first, parent(second, next(rest))
        first, second = roots(old - middle, new - middle, False)
        left = next(rest)
        return parent(left, first), parent(left, second)

    try:
        need(roots(old, new, True) == (old_root, new_root), "the two checkpoints are not of one history")
    except StopIteration:
        raise Refused("the proof from one checkpoint to the other ends too early") from None
    need(next(rest, None) is None, "the proof from one checkpoint to the other has hashes that nothing needs")


def root_of_all(hashes):
    if len(hashes) == 1:
        return hashes[0]
    middle = split(len(hashes))
    return parent(root_of_all(hashes[:middle]), root_of_all(hashes[middle:]))


# ---- BLAKE3, for recipe and calibration texts: c2sp.org/BLAKE3 ----

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIX = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def compress(chain, block, counter, length, flags):
    v = chain + IV[:4] + [counter, 0, length, flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIX):
            for word, turn_d, turn_b in ((block[2 * i], 16, 12), (block[2 * i + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
                v[d] ^= v[a]
                v[d] = (v[d] >> turn_d | v[d] << 32 - turn_d) & 0xFFFFFFFF
                v[c] = (v[c] + v[d]) & 0xFFFFFFFF
                v[b] ^= v[c]
                v[b] = (v[b] >> turn_b | v[b] << 32 - turn_b) & 0xFFFFFFFF
        block = [block[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3_node(data, chunk, root):
    """The chaining value of `data`, which begins at `chunk`; `root` is 8 for the whole input, else 0."""
    if len(data) > KIB:
        left = KIB * split(-(-len(data) // KIB))
        halves = blake3_node(data[:left], chunk, 0) + blake3_node(data[left:], chunk + left // KIB, 0)
        return compress(IV, halves, 0, 64, 4 | root)
    chain, last = IV, max(0, len(data) - 1) // 64
    for at in range(last + 1):
        block = data[64 * at :][:64]
        flags = (at == 0) | (2 | root) * (at == last)
        chain = compress(chain, struct.unpack("<16I", block.ljust(64, b"\0")), chunk, len(block), flags)
    return chain


@functools.lru_cache(maxsize=64)
def blake3(data):
    return "blake3:" + struct.pack("<8I", *blake3_node(data, 0, 8)).hex()


# ---- Exports: export.md ----

LOCAL, CENTRAL, END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
MANIFEST = "manifest.dsse.json"
UNREAD = {"README.txt", "decisions.csv", "decisions.de.csv", "decisions.jsonl", "report.html"}
PAGE = "verify.html"  # like this program; a reader needs it from elsewhere
FIXED = UNREAD | {"checkpoint", "entries.index.txt", "entries.jsonl", "entries.proof.txt", "log.vkey", "private.jsonl", MANIFEST}
LIMITS = {"calibrations": 64 * KIB, "model-cards": 256 * KIB, "recipes": 64 * KIB, "checkpoint": 128 * KIB, MANIFEST: MIB, PAGE: MIB}


def unpack(raw):
    """The files that are read further, the SHA-256 of all, and where the manifest begins."""
    need(END.size <= len(raw) <= 2 * GIB, "no export: too short, or more than 2 GiB")
    *_, count, length, central, _ = END.unpack(raw[-END.size :])
    end = END.pack(b"PK\5\6", 0, 0, count, count, length, central, 0)
    need(count <= 512 and central + length + END.size == len(raw) and raw.endswith(end), "the end of the ZIP is another")
    files, digests, unpacked, at, row = {}, {}, 0, 0, central
    for _ in range(count):
        need(row + CENTRAL.size <= len(raw), "the ZIP's directory is cut off")
        *_, crc, packed, size, name_length, _, _, _, _, _, _ = CENTRAL.unpack_from(raw, row)
        name_bytes = raw[row + CENTRAL.size :][:name_length] if name_length < 128 else b"?"
        name, start, is_stored = name_bytes.decode("ascii"), at, name_bytes == MANIFEST.encode()
        in_folder = re.fullmatch(r"((calibrations|recipes)/[0-9a-f]{64}\.toml|model-cards/[0-9a-f]{64}\.md)", name)
        need((in_folder or name in FIXED or name == PAGE) and name not in digests, f"the ZIP holds what no export has: {name[:100]!r}")
        need(size <= LIMITS.get(name.partition("/")[0], 2 * GIB), f"{name} is too long")
        flags, method, sizes = (0x800, 0, (crc, packed, size)) if is_stored else (0x808, 8, (0, 0, 0))
        head = CENTRAL.pack(b"PK\1\2", 20, 20, flags, method, 0, 33, crc, packed, size, name_length, 0, 0, 0, 0, 0, at)
        local = LOCAL.pack(b"PK\3\4", 20, flags, method, 0, 33, *sizes, name_length, 0) + name_bytes
        after = b"" if is_stored else struct.pack("<4s3I", b"PK\7\x08", crc, packed, size)
        data_at, row = at + len(local), row + len(head) + name_length
        at = data_at + packed + len(after)
        need(at <= central and raw[start:data_at] == local and raw[at - len(after) : at] == after
             and raw[row - len(head) - name_length : row] == head + name_bytes, f"the ZIP's headers of {name} are others")
        data = raw[data_at : data_at + packed]
        if not is_stored:
            inflater = zlib.decompressobj(-15)
            data = inflater.decompress(data, size + 1)
            need(inflater.eof and not inflater.unused_data, f"{name} does not unpack to its size")
        unpacked += size
        need(len(data) == size and zlib.crc32(data) == crc, f"{name} does not unpack to its size and CRC")
        need(unpacked <= 6 * GIB, "the export unpacks to more than 6 GiB")
        digests[name] = sha256(data).hex()
        if name not in UNREAD and name != PAGE:
            files[name] = data
    need(at == central and row == len(raw) - END.size, "the ZIP has bytes that belong to no file")
    need(FIXED <= digests.keys() and list(digests) == sorted(digests.keys() - {MANIFEST}) + [MANIFEST],
         "a file is missing, or not in its place")
    return files, digests, start


def check_export(raw, keys):
    files, digests, manifest_at = unpack(raw)
    yield f"The ZIP holds the {len(digests)} files of an export, in order, and not one byte besides."

    origin, size, root, signer = open_checkpoint(files["checkpoint"], keys)
    envelope = read_json(files[MANIFEST], "the manifest", "envelope")
    payload, kind, (signature, *others) = unbase64(envelope["payload"]), envelope["payloadType"], envelope["signatures"]
    need(signature["keyid"] == signer and not others, "manifest and checkpoint are not signed by the same key")
    pae = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    check_signature(keys[signer][2], unbase64(signature["sig"]), pae, "the manifest")
    statement = read_json(payload, "the manifest's statement", "statement")
    manifest = statement["predicate"]
    need(manifest["format"] == 1, f"an export of format {manifest['format']}; this check knows 1")
    need(manifest["checkpoint"] == {"origin": origin, "root": "sha256:" + root.hex(), "size": size},
         "the manifest speaks of another checkpoint")
    need(files["log.vkey"] == keys[signer][0].encode() + b"\n", "log.vkey is not the key that signed")
    yield f"Checkpoint and manifest are signed by {signer}."

    listed = [(subject["name"], subject["digest"]["sha256"]) for subject in statement["subject"]]
    need(listed == list(digests.items())[:-1], "the files are not those that the manifest lists")
    need(manifest["container"] == "sha256:" + sha256(memoryview(raw)[:manifest_at]).hex(), "the ZIP was packed again")
    yield "All files, and the ZIP around them, are those that were signed."

    bodies = lines(files["entries.jsonl"], "entries.jsonl")
    indexes = [whole(line.decode()) for line in lines(files["entries.index.txt"], "entries.index.txt")]
    proof = [unbase64(line, 32) for line in lines(files["entries.proof.txt"], "entries.proof.txt")]
    need(len(indexes) == len(bodies), "there are not as many entries as indexes")
    need(0 < len(bodies) <= 500_000 and len(proof) <= 64 * len(bodies), "no entry, or too many entries or hashes")
    need(all(a < b for a, b in zip(indexes, indexes[1:] + [size])), "an index is out of order, or beyond the checkpoint")
    need(root_of_some(indexes, list(map(leaf_hash, bodies)), size, proof) == root, "the entries do not lead to the signed root")
    yield f"All {len(bodies)} entries stand in the log of {size} entries that the checkpoint signs."

    entries = dict(zip(indexes, map(read_entry, bodies)))
    decisions = {index: entry for index, entry in entries.items() if entry["kind"] == "decision"}
    gaps = {index: entry for index, entry in entries.items() if entry["kind"] == "gap"}
    yield f"All entries are well-formed; each of the {len(decisions)} verdicts follows from its scores and thresholds."

    openings = check_openings(lines(files["private.jsonl"], "private.jsonl"), decisions)
    closes = {index: entry for index, entry in entries.items() if entry["kind"] == "period_close"}
    check_selection(manifest["selection"], decisions, gaps, closes, openings)
    yield f"All {len(openings)} opened values are those the entries commit to; all decisions and gaps were asked for."

    for folder, stated, named in (
        ("recipes", "recipes", {entry["recipe"]["digest"] for entry in decisions.values()}),
        ("calibrations", "calibrations", {entry["calibration"] for entry in decisions.values() if "calibration" in entry}),
        ("model-cards", "model_cards", {entry["model"]["digest"] for entry in decisions.values()}),
    ):
        held = {"blake3:" + name[len(folder) + 1 :][:64]: data for name, data in files.items() if name.startswith(folder + "/")}
        need(folder == "model-cards" or all(blake3(data) == digest for digest, data in held.items()),
             f"a text in {folder} is not the one its name says")
        need(held.keys() <= named, f"no decision names a text in {folder}")
        need(manifest["absent"][stated] == sorted(named - held.keys()), f"other {folder} are missing than the manifest says")
    yield "All recipe and calibration texts are those that the decisions name."

    verdicts = Counter(entry["verdict"] for entry in decisions.values())
    counts = {"decisions": len(decisions), "entries": len(entries), "gaps": len(gaps), "openings": len(openings),
              "gap_frames": sum(entry["count"] for entry in gaps.values()), "ok": verdicts["OK"],
              "not_ok": verdicts["NOT_OK"], "not_decidable": verdicts["NOT_DECIDABLE"],
              "other": len(entries) - len(decisions) - len(gaps)}
    need(manifest["counts"] == counts, "the manifest counts otherwise")
    yield "The manifest's counts are right. Not checked: recipe contents, tables, report (lineproof verify does)."

    recounted = check_closes(manifest["selection"], closes, marks_of(entries.items()))
    periods, frames = need_complete(closes.items())
    yield (f"The line closed {periods} periods with {frames} frames, and nothing is missing in them; {recounted} of {len(closes)}"
           " closes were counted again here."
           if closes else "No closed period counts these frames: nobody says how many there were.")
    return (f"an export of the log {origin}: {counts['decisions']} decisions ({counts['ok']} OK, {counts['not_ok']} NOT_OK,"
            f" {counts['not_decidable']} NOT_DECIDABLE), {counts['gap_frames']} frames without a decision")


def check_openings(rows, decisions):
    """The opened values by index and field."""
    openings, last = {}, (-1, "")
    for row in rows:
        need(len(row) <= 2048, "an opening is too long")
        opening = read_json(row, "an opening", "export-opening")
        place = opening["index"], opening["field"]
        need(last < place and place[0] in decisions, "an opening out of order, or of no decision in this export")
        check_opening(opening, decisions[place[0]], f"entry {place[0]}")
        openings[place], last = opening["value"], place
    return openings


def check_closes(selection, closes, marks):
    """Step 9: every close against what the export holds; how many of them it holds whole."""
    need(len(closes) <= 10_000, "more than 10,000 period closes")
    by_part = selection.keys() & {"lot", "part", "product", "recipe", "score_max", "score_min"}
    takes_all = not by_part and len(selection.get("verdicts", [])) in (0, 3) and selection.keys().isdisjoint({"from", "to"})
    recounted = 0
    for index, close in closes.items():
        check_close(index, close)
        if close.get("previous") in closes:
            check_follows(index, close, closes[close["previous"]])
        if close.get("corrects") in closes:
            check_corrects(index, close, closes[close["corrects"]])
        decided, gaps, rest = count(close, marks.get(place(close), []))
        is_whole = says(close, decided, gaps, rest)
        found = split_at([(a["first"], a["last"]) for a in close.get("missing", [])], decided + gaps)[0]
        need(not found and size_of(decided) <= close["decided"] and (is_whole or not takes_all),
             f"the entries here give other numbers than entry {index}")
        recounted += is_whole
    return recounted


def check_selection(selection, decisions, gaps, closes, openings):
    low, high = selection.get("score_min"), selection.get("score_max")
    for index, entry in closes.items():
        need(all(entry[key] == selection[key] for key in ("camera", "line", "station") if key in selection),
             f"entry {index} was not asked for")
    for index, entry in [*decisions.items(), *gaps.items()]:
        fit = all(entry[key] == selection[key] for key in ("camera", "line", "station") if key in selection)
        fit = fit and selection.get("from", "") <= entry["time"] < selection.get("to", "~")
        if fit and entry["kind"] == "decision":
            value = score(entry["scores"]["decision"])
            fit = (selection.get("product", entry["product"]) == entry["product"]
                   and selection.get("recipe", entry["recipe"]["name"]) == entry["recipe"]["name"]
                   and (low is None or score(low) <= value) and (high is None or value <= score(high))
                   and entry["verdict"] in selection.get("verdicts", [entry["verdict"]])
                   and ("lot" not in selection or openings.get((index, "lot")) == selection["lot"])
                   and ("part" not in selection or openings.get((index, "serial")) == selection["part"]))
        need(fit, f"entry {index} was not asked for")


# ---- Passports: passport.md ----


def check_passport(raw, keys):
    head, blank, note = raw.decode().partition("\n\n")
    rows = head.split("\n")
    need(blank and 3 <= len(rows) <= 3 + 64 and rows[0] == "c2sp.org/tlog-proof@v1", "no passport")
    need(rows[1].startswith("extra ") and rows[2].startswith("index "), "the passport lacks its entry or the entry's index")
    (body, *opened), index, path = unbase64(rows[1][6:]).split(b"\n"), whole(rows[2][6:]), [unbase64(row, 32) for row in rows[3:]]
    origin, size, root, signer = open_checkpoint(note.encode(), keys)
    yield f"The checkpoint is signed by {signer}."

    need(index < size and root_of_one(leaf_hash(body), index, size, path) == root, "the entry does not lead to the signed root")
    yield f"The entry stands in the log of {size} entries that the checkpoint signs, at place {index}."

    entry = read_entry(body)
    yield "The entry is well-formed; a verdict in it follows from its scores and thresholds."

    need(len(opened) <= 16 and all(len(row) <= 1024 for row in opened), "too many openings, or one that is too long")
    openings = [read_json(row, "an opening", "passport-opening") for row in opened]
    values = {opening["field"]: opening["value"] for opening in openings}
    need(len(values) == len(openings), "a value is opened twice")
    for opening in openings:
        check_opening(opening, entry, f"entry {index}")
    yield f"All {len(values)} opened values are those the entry commits to."
    what = "".join(f", {field} {value!r}" for field, value in values.items())
    return f"a passport of the log {origin}: entry {index}, {entry['kind']} {entry.get('verdict', '')}{what}"


# ---- Handovers: rotation.md ----


def take_handover(raw, keys):
    """Checks the passport of an entry that announces the log's next key, and trusts that one, too."""
    for _ in check_passport(raw, keys):
        pass
    head, _, note = raw.decode().partition("\n\n")
    entry = json.loads(unbase64(head.split("\n")[1][6:]).split(b"\n")[0])
    vkey = entry.get("vkey") if entry["kind"] == "rotation" and entry.get("event") == "announced" else None
    need(type(vkey) is str and vkey.startswith(note.split("\n")[0] + "+"), "the handover announces no key of this log")
    try:
        (new,) = read_keys(vkey).items()
    except (Usage, ValueError):
        raise Refused("the handover announces what is no key") from None
    need(new[1][0] == vkey and new[1][1] == 1, "the handover announces what is no key of a log")
    keys.setdefault(*new)
    return f"The handover announces {new[0]} under a key that was given."


# ---- Answers to challenges: challenge.md ----

EPS = score("0x3727c5ac 0.00001")


def picked(seed, count, size):
    """The indexes that a nonce picks."""
    found, draw = set(), 0
    while len(found) < min(count, size):
        value = int.from_bytes(sha256(seed + draw.to_bytes(8, "big"))[:8], "big")
        if value < 2**64 // size * size:
            found.add(value % size)
        draw += 1
    return sorted(found)


def check_challenge(raw, keys):
    need(len(raw) <= 16 * MIB, "the answer is too long")
    head, blank, note = raw.decode().partition("\n\n")
    rows = head.split("\n")
    has_replays = rows[0] == "lineproof challenge 2"
    need(blank and len(rows) >= 3 and (has_replays or rows[0] == "lineproof challenge 1"), "no answer to a challenge")
    match = re.fullmatch("nonce ((?:[0-9a-f]{2}){16,64})", rows[1])
    count = whole(rows[2][6:]) if rows[2].startswith("count ") else 0
    need(match and 1 <= count <= 1000, "the answer lacks its nonce, or asks for no entry or more than 1000")
    words = ["entry", "proof", "replay", "replay-proof", "consistency", "later"][: 6 if has_replays else 2]
    parts, at = {word: [] for word in words}, 0
    for row in rows[3:]:
        word, space, rest = row.partition(" ")
        need(space and word in words[at:], "the answer has a line that belongs to nothing, or not there")
        at = words.index(word)
        parts[word].append(rest)
    bodies = list(map(unbase64, parts["entry"]))
    proof = [unbase64(row, 32) for row in parts["proof"]]
    origin, size, root, signer = open_checkpoint(note.encode(), keys)
    yield f"The checkpoint is signed by {signer}. Hold it against the one you had before you gave the nonce."

    need(size > 0, "the log has no entries yet")
    seed = sha256(b"lineproof challenge v1\n" + sha256((note.rpartition("\n\n")[0] + "\n").encode()) + bytes.fromhex(match[1]))
    indexes = picked(seed, count, size)
    need(len(indexes) == len(bodies), f"the answer has {len(bodies)} entries, the nonce picks {len(indexes)}")
    need(root_of_some(indexes, list(map(leaf_hash, bodies)), size, proof) == root, "the entries do not lead to the signed root")
    yield f"The nonce {match[1]} picks exactly these {len(bodies)} of {size} entries, and all stand in the log. Compare it with yours."

    kinds = Counter(read_entry(body)["kind"] for body in bodies)
    yield "All entries are well-formed; every verdict follows from its scores and thresholds."
    proven = f"an answer of the log {origin}: " + ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds))
    if not has_replays:
        return proven

    entries = dict(zip(indexes, map(read_entry, bodies)))
    decisions = {index: entry for index, entry in entries.items() if entry["kind"] == "decision"}
    outcomes, later = check_replays(parts, origin, size, root, seed, decisions, keys)
    yield f"After the checkpoint the plant decided the picked decisions again: {outcomes}. A later checkpoint, {later}, covers that."
    return f"{proven}; decided again: {outcomes}"


def check_replays(parts, origin, size, root, seed, decisions, keys):
    """What came out when the picked decisions were decided again, as entries behind the checkpoint say."""
    rows = [row.partition(" ") for row in parts["replay"]]
    need(1 <= len(rows) <= 16 and len(parts["later"]) == 1, "the answer has no replay entry, too many, or no later checkpoint")
    places, bodies = [whole(index) for index, _, _ in rows], [unbase64(body) for _, _, body in rows]
    later_origin, later_size, later_root, signer = open_checkpoint(unbase64(parts["later"][0]), keys)
    need(later_origin == origin and later_size > size, "the second checkpoint is not a later one of the same log")
    need_one_history(size, root, later_size, later_root, [unbase64(row, 32) for row in parts["consistency"]])
    for before, place in zip([size - 1] + places, places):
        need(before < place < later_size, f"entry {place} does not stand between the checkpoints, or not in its place")
    proof = [unbase64(row, 32) for row in parts["replay-proof"]]
    found = root_of_some(places, list(map(leaf_hash, bodies)), later_size, proof)
    need(found == later_root, "the replay entries do not lead to the later root")
    named, counts = [], Counter()
    for entry in map(read_entry, bodies):
        need(entry["kind"] == "replay" and fits(entry, "replay") and entry["v"] == 2, "an entry is no replay")
        ran = {outcome: entry[outcome] for outcome in ("exact", "within", "differs") if outcome in entry}
        need(("largest" in entry) == ("runtime" in entry) == bool(ran), "a replay that ran and does not say on what")
        need(entry.get("challenge") == "sha256:" + seed.hex(), "a replay was not made for this challenge")
        eps, largest = score(entry["eps"]), score(entry.get("largest", "0x00000000 0"))
        need(0 <= eps <= EPS, "a replay allows larger differences than a challenge does, or negative ones")
        most = 0 if not ran.keys() - {"exact"} else eps if "differs" not in ran else largest
        need(0 <= largest <= most, "the largest difference does not go with what came out")
        need(entry.get("not_replayable") != {}, "a replay that leaves nothing out and says so")
        here = [(outcome, *spans(text)) for outcome, text in {**ran, **entry.get("not_replayable", {})}.items()]
        need(1 <= sum(count for _, count, _ in here) <= 256, "a replay of no decision, or of more than 256")
        for outcome, count, ranges in here:
            counts[outcome] += count
            named += [(index, outcome) for first, last in ranges for index in range(first, last + 1)]
    need(sorted(index for index, _ in named) == sorted(decisions), "the replays are not of the picked decisions, each once")
    for index, outcome in named:
        kept = not decisions[index]["image"]["archive"].startswith("none:")
        on_cpu = decisions[index]["runtime"]["provider"] == "cpu"
        need(kept == (outcome != "not_archived") and not (outcome == "other_provider" and on_cpu),
             f"what a replay says of entry {index} cannot be, by what that decision says")
    outcomes = ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts))
    return outcomes, f"of {later_size} entries by {signer}"


def spans(text):
    """How many entries ranges name, and the first and last of each."""
    ranges = [(int(match[1]), int(match[2] or match[1])) for match in map(RANGE, text.split(" "))]
    return sum(last - first + 1 for first, last in ranges), ranges


# ---- Logs: log.md, c2sp.org/tlog-tiles ----


def read_tile(log, level, number, width):
    """Path and bytes of a tile, and its width: a log may keep the full one in place of a partial one."""
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    full = log.joinpath("tile", level, *("x" + part for part in parts[:-1]), parts[-1])
    partial = full.with_name(full.name + ".p") / str(width)
    path, width = (partial, width) if width < 256 and partial.is_file() else (full, 256)
    need(path.is_file() and path.stat().st_size <= 256 * 8194, f"{path} is missing, or too long")
    return path, path.read_bytes(), width


def check_log(log, keys):
    origin, size, root, signer = open_checkpoint((log / "checkpoint").read_bytes(), keys)
    need(size > 0, "the log has no entries yet")
    yield f"The checkpoint over {size} entries is signed by {signer}."

    hashes, entries = [], []
    for first in range(0, size, 256):
        path, data, width = read_tile(log, "entries", first // 256, min(256, size - first))
        at, bodies = 0, []
        for _ in range(width):
            length = int.from_bytes(data[at : at + 2], "big")
            at += 2 + length
            need(at <= len(data) and length <= 8192, f"{path} is cut off, or holds an entry that is too long")
            bodies.append(data[at - length : at])
        need(at == len(data), f"{path} has bytes that belong to no entry")
        entries += bodies[: size - first]
    level, row = 0, list(map(leaf_hash, entries))
    while row:
        tops = []
        for first in range(0, len(row), 256):
            part = row[first : first + 256]
            path, data, width = read_tile(log, str(level), first // 256, len(part))
            need(len(data) == 32 * width and data.startswith(b"".join(part)), f"{path} does not fit the entries")
            tops += [root_of_all(part)] if len(part) == 256 else []
        level, row, hashes = level + 1, tops, hashes or row
    need(root_of_all(hashes) == root, "the entries do not lead to the signed root")
    yield "All entries and hash tiles lead to the root that the checkpoint signs."

    entries = list(enumerate(map(read_entry, entries)))
    retired = [entry.get("vkey") for _, entry in entries if entry["kind"] == "rotation" and entry.get("event") == "retired"]
    need(keys[signer][0] not in retired, f"an entry of this log retired {signer}, which signed the checkpoint")
    kinds = Counter(entry["kind"] for _, entry in entries)
    yield "All entries are well-formed; every verdict follows from its scores and thresholds."

    closes = [(index, entry) for index, entry in entries if entry["kind"] == "period_close"]
    check_all_closes(closes, marks_of(entries))
    periods, frames = need_complete(closes)
    yield (f"The line closed {periods} periods with {frames} frames; counted again, nothing is missing in them."
           if closes else "No period is closed: nobody says how many frames there were.")
    return f"the log {origin}: {size} entries (" + ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds)) + ")"


def check_all_closes(closes, marks):
    """Every close of a log against all that came before it."""
    chains, originals = {}, dict(closes)
    for index, close in closes:
        check_close(index, close)
        chain = chains.setdefault(place(close), [])
        if "corrects" in close:
            need(close["corrects"] in chain, f"entry {index} corrects what is no period of its camera")
            check_corrects(index, close, originals[close["corrects"]])
        else:
            need(close.get("previous") == (chain[-1] if chain else None), f"entry {index} names another period as the one before")
            before = chain[-1:] if "restarted" in close["announced"] else chain[-2:-1]
            need(close["since"] == (originals[before[0]]["end"] if before else 0), f"entry {index} does not say truly what it counted")
            if chain:
                check_follows(index, close, originals[chain[-1]])
            chain.append(index)
        need(says(close, *count(close, marks.get(place(close), []))), f"the entries give other numbers than entry {index}")


# ---- The command ----


def judge(evidence, key_file, *handovers):
    """The steps that passed in words, what was proven if all did, and why not if one did not."""
    try:
        keys = read_keys(pathlib.Path(key_file).read_text(encoding="utf-8"))
        handed = [pathlib.Path(handover).read_bytes() for handover in handovers]
        path = pathlib.Path(evidence)
        if path.is_dir():
            log = path / "log" if (path / "log").is_dir() else path
            checks = check_log(log, keys)
            (log / "checkpoint").open().close()
        else:
            raw = path.read_bytes()
            check = check_passport if raw.startswith(b"c2sp.org/tlog-proof") else check_export
            checks = (check_challenge if raw.startswith(b"lineproof challenge") else check)(raw, keys)
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(error) from None
    passed = []
    try:
        passed += [take_handover(raw, keys) for raw in handed]
        while True:
            passed.append(next(checks))
    except StopIteration as end:
        return passed, end.value, None
    except (Refused, ValueError, zlib.error) as reason:
        return passed, None, reason


def batch():
    for row in sys.stdin:
        try:
            passed, proven, reason = judge(*row.rstrip("\n").split("\t"))
            print("accepted" if proven else f"refused\t{len(passed) + 1}\t{reason}".replace("\n", " "), flush=True)
        except Usage as error:
            print(f"unusable\t{error}".replace("\n", " "), flush=True)


def main(arguments):
    try:
        if arguments == ["--batch"]:
            return batch()
        if len(arguments) < 2:
            raise Usage(__doc__.strip())
        passed, proven, reason = judge(*arguments)
    except Usage as error:
        print(error, file=sys.stderr)
        return 2
    for number, text in enumerate(passed, 1):
        print(f"{number}. {text}")
    print(f"GENUINE: {proven}" if proven else f"REFUSED at step {len(passed) + 1}: {reason}")
    return 0 if proven else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
