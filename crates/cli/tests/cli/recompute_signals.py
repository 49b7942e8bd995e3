#!/usr/bin/env python3
"""Computes signals again from the observations that were recorded, and compares.

    recompute_signals.py LINES DUMP

LINES: what was given to `steadfast apply`, every line of it accepted and every observation with its
`at_us`. DUMP: what `steadfast dump` wrote. The formulas are those of JSON.md, "Computing a signal
again"; nothing here was taken from the database's own code. Exits 0 if every signal is there and is
what it should be, 1 if not.
"""

import json
import sys
from collections import Counter, defaultdict

MINUTE_US, HOUR_US = 60_000_000, 3_600_000_000
UNDEFINED = {"version": 0, "decay": "exponential", "half_life_us": 7 * 24 * HOUR_US,
             "minutes": 60, "hours": 24, "velocity_minutes": 60}


def read(line):
    """A line of JSON; whole numbers beyond 2^53 are tagged."""
    return json.loads(line, object_hook=lambda o: int(o["$int"]) if list(o) == ["$int"] else o)


def recomputed(observations, definition, committed_us):
    """What a dump must say of these observations, pairs of time and weight."""
    counted = [(t, w) for t, w in observations if t <= committed_us]
    ahead = sorted(((t, w) for t, w in observations if t > committed_us), key=lambda one: one[0])
    newest = max((t for t, _ in counted), default=0)
    due = {"count": len(counted), "newest_us": newest, "ahead": [list(one) for one in ahead]}
    slices = {}
    if definition["decay"] == "permanent":
        score = sum(w for _, w in counted)
    elif definition["decay"] == "exponential":
        score = sum(w * 2.0 ** (-(newest - t) / definition["half_life_us"]) for t, w in counted)
    else:
        score = 0.0
        length = -(-definition["lifetime_us"] // 64)
        for t, w in counted:
            if t // length > newest // length - 64:
                slices[t // length] = slices.get(t // length, 0.0) + w
    due["score"], due["slices"] = score, [list(one) for one in sorted(slices.items(), reverse=True)]
    for name, length in ("minutes", MINUTE_US), ("hours", HOUR_US):
        per = Counter(newest // length - t // length for t, _ in counted)
        ring = [per[back] for back in range(definition[name])]
        while ring and ring[-1] == 0:
            ring.pop()
        due[name] = ring
    return due


def agrees(due, found):
    """Whole numbers exactly, weights to six decimals."""
    if isinstance(due, list):
        return (isinstance(found, list) and len(due) == len(found)
                and all(agrees(*pair) for pair in zip(due, found)))
    if isinstance(due, float):
        return abs(due - found) <= 1e-6 * max(1.0, abs(due))
    return due == found


def main(lines, dump):
    observed, definitions = defaultdict(list), {}
    for line in open(lines, encoding="utf-8"):
        for op in read(line)["ops"]:
            if op["op"] == "signal_define":
                assert op["name"] not in definitions, "one definition a name"
                definitions[op["name"]] = op["definition"]
            if op["op"] == "signal":
                key = op["run"], op["name"], json.dumps(op["entity"])
                observed[key].append((op["at_us"], float(op["weight"])))
    wrong, compared, ended = [], 0, False
    for line in open(dump, encoding="utf-8"):
        found = read(line)
        ended = found["type"] == "end"
        if found["type"] != "signal":
            continue
        key = found["run"], found["name"], json.dumps(found["entity"])
        definition = definitions.get(found["name"], UNDEFINED)
        if found["definition"] != definition:
            wrong.append(f"{key}: the definition is {found['definition']}, due {definition}")
            continue
        for field, due in recomputed(observed.pop(key, []), definition, found["at_us"]).items():
            if not agrees(due, found.get(field, [])):
                wrong.append(f"{key}: {field} is {found.get(field, [])}, due {due}")
        compared += 1
    wrong += [f"{key}: is missing" for key in observed]
    if not ended:
        wrong.append("the dump has no end")
    print("\n".join(wrong + [f"{compared} signals compared, {len(wrong)} differences"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
