"""Rows: a journal that was cut, or in which bits have flipped, and files beside it that are damaged."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from experiments.reliability.cases import Case, Row, judge
from experiments.reliability.prepared import Prepared
from experiments.reliability.saying import synced
from experiments.reliability.truth import single
from experiments.reliability.workplace import Workplace

EVERY = 50  # bytes between two cuts
LONGEST = 6000  # bytes: the prepared journal is a little shorter or longer
FLIPS = 500
COPY_FLIPS = 20


def _fresh(place: Workplace) -> Prepared:
    place.store.empty()
    return place.prepared.copy_to(place.new_folder())


def _truncated(place: Workplace, case: str) -> Case:
    journal = _fresh(place)
    cut = int(case)
    data = journal.journal.read_bytes()
    if cut >= len(data):
        return Case(case, "complete", "the journal is shorter")
    journal.journal.write_bytes(data[:cut])
    name = journal.journal.stem
    said = synced(journal.folder, place.store.uri)
    lines = data[:cut].count(b"\n")
    has_part = not data[:cut].endswith(b"\n")
    if has_part and data[cut : cut + 1] == b"\n":
        lines, has_part = lines + 1, False  # only the end of the line is gone
    runs = place.store.runs()
    if not lines:  # nothing is left but a part of the header
        return judge(case, [journal.header], runs, said, name, also=frozenset({1}))
    # What is left must be there, and a part of an entry must be told: something that cannot be there stands for it.
    logged = [journal.header, *journal.logged[: max(0, lines - journal.headers)]]
    part = [single("cut", "line")] if has_part and lines >= journal.headers else []
    killed = [] if single("status", "FINISHED") in logged else [single("status", "KILLED")]
    return judge(case, logged + part + killed, runs, said, name)


def _flipped(place: Workplace, case: str) -> Case:
    journal = _fresh(place)
    data = bytearray(journal.journal.read_bytes())
    position = random.Random(int(case)).randrange(8 * len(data))
    data[position // 8] ^= 1 << position % 8
    before = set(journal.lines())
    journal.journal.write_bytes(data)
    damaged = sum(line not in before for line in journal.lines())
    name = journal.journal.stem
    said = synced(journal.folder, place.store.uri)
    logged = [journal.header, *journal.logged]
    result = judge(case, logged, place.store.runs(), said, name, also=frozenset({damaged}))
    where = f"bit {position % 8} of byte {position // 8}"
    return Case(case, result.outcome, f"{where}; {result.detail}", result.told)


def _copy_flipped(place: Workplace, case: str) -> Case:
    journal = _fresh(place)
    chance = random.Random(int(case))
    files = sorted(file for file in journal.journal.with_suffix("").rglob("*") if file.is_file())
    file = chance.choice([file for file in files if file.suffix == ".txt"])
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    said = synced(journal.folder, place.store.uri)
    return judge(case, [journal.header, *journal.logged], place.store.runs(), said, journal.journal.stem)


Damage = Callable[[bytes, random.Random], bytes]


def _one_bit(data: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(8 * len(data))
    flipped = bytearray(data)
    flipped[position // 8] ^= 1 << position % 8
    return bytes(flipped)


DAMAGES: dict[str, Damage] = {
    "empty": lambda data, chance: b"",
    "half": lambda data, chance: data[: len(data) // 2],
    "cut": lambda data, chance: data[: chance.randrange(len(data))],
    "flip": _one_bit,
    "zeros": lambda data, chance: bytes(len(data)),
    "noise": lambda data, chance: chance.randbytes(len(data)),
    "list": lambda data, chance: b"[1]",
    "texts": lambda data, chance: b'{"x": "y"}',
    "gone": lambda data, chance: b"",
    "folder": lambda data, chance: b"",
}
SENT_CASES = [f"{kind} {half}" for half in ("whole", "half") for kind in DAMAGES if kind not in ("cut", "flip")]
SENT_CASES += [f"{kind} {half} {seed}" for half in ("whole", "half") for kind in ("cut", "flip") for seed in range(30)]


def _sent_damaged(place: Workplace, case: str) -> Case:
    """Send the journal, or its first half, damage the note of what was sent, and send again."""
    journal = _fresh(place)
    kind, how_much, *seed = case.split()
    lines = journal.lines()
    if how_much == "half":
        journal.journal.write_bytes(b"".join(lines[: len(lines) // 2]))
    said = synced(journal.folder, place.store.uri)
    if how_much == "half":  # what was appended by the first call stays in between
        with journal.journal.open("ab") as file:
            file.write(b"".join(lines[len(lines) // 2 :]))
    sent = journal.journal.with_suffix(".sent")
    data = sent.read_bytes()
    sent.unlink()
    if kind == "folder":
        sent.mkdir()
    elif kind != "gone":
        sent.write_bytes(DAMAGES[kind](data, random.Random(int(seed[0]) if seed else 0)))
    said = synced(journal.folder, place.store.uri)
    if "CRASHED" in said:
        return Case(case, "ended", "sync ended with an error", said)
    return judge(case, [journal.header, *journal.logged], place.store.runs(), said, journal.journal.stem)


def _lock_damaged(place: Workplace, case: str) -> Case:
    journal = _fresh(place)
    lock = journal.journal.with_suffix(".lock")
    lock.unlink(missing_ok=True)
    if case == "noise":
        lock.write_bytes(random.Random(0).randbytes(1000))
    elif case == "folder":
        lock.mkdir()
    elif case == "read only":
        lock.touch(0o400)
    elif case == "link to nowhere":
        lock.symlink_to("nowhere/at/all")
    started = time.monotonic()
    said = synced(journal.folder, place.store.uri)
    if "CRASHED" in said:
        return Case(case, "ended", "sync ended with an error", said)
    result = judge(case, [journal.header, *journal.logged], place.store.runs(), said, journal.journal.stem)
    return Case(case, result.outcome, f"{result.detail} after {time.monotonic() - started:.0f} s", result.told)


ROWS = [
    Row(
        "damage",
        "journal cut short",
        f"the file is cut at every {EVERY}th byte, then `sync`",
        [str(offset) for offset in range(0, LONGEST, EVERY)],
        _truncated,
        quick=12,
    ),
    Row(
        "damage",
        "flipped bit",
        "one bit anywhere in the file, then `sync`",
        [str(seed) for seed in range(FLIPS)],
        _flipped,
        quick=40,
    ),
    Row(
        "damage",
        "flipped bit in an artifact",
        "one bit in a copied artifact, then `sync`",
        [str(seed) for seed in range(COPY_FLIPS)],
        _copy_flipped,
        quick=2,
    ),
    Row(
        "damage",
        "damaged `.sent`",
        "empty, cut, flipped, overwritten or gone, after all or half was sent; then `sync`",
        SENT_CASES,
        _sent_damaged,
        quick=16,
    ),
    Row(
        "damage",
        "damaged lock file",
        "gone, noise, a folder, read only, a dead link; then `sync`",
        ["gone", "noise", "folder", "read only", "link to nowhere"],
        _lock_damaged,
    ),
]
