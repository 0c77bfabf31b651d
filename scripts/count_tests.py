#!/usr/bin/env python3
"""Count the tests of one part of scripts/test.sh.

    count_tests.py PART JUNIT_XML ALLOWED_SKIPS

Reads what pytest or ctest wrote, prints the failed and the skipped tests with
their reasons, and as its last line `passed failed skipped`.  A skip that no
line of ALLOWED_SKIPS allows counts as failed.  A cmocka program counts with
each of its tests.

A line of ALLOWED_SKIPS is `PART TEST REASON`; the first two may hold * and ?.
"""

import fnmatch
import re
import sys
import xml.etree.ElementTree as xml


def allowed_skips(path):
    """(pattern of the part, pattern of the test) of each line."""
    with open(path) as file:
        lines = [line.split("#", 1)[0].split(None, 2) for line in file]
    return [[word.replace("[", "[[]") for word in line[:2]]
            for line in lines if len(line) == 3]


def cmocka_tests(output):
    """(name, outcome) of each test in the output of a cmocka program."""
    words = {"OK": "passed", "FAILED": "failed", "SKIPPED": "skipped"}
    found = {}
    for line in output.splitlines():
        match = re.match(r"\[\s*(OK|FAILED|SKIPPED)\s*\] (?:.*: )?(\w+)$",
                         line.strip())
        if match:
            found[match[2]] = words[match[1]]
    return list(found.items())


def outcomes(case):
    """(name, outcome, reason) of what a <testcase> stands for."""
    name = case.get("name")
    if case.get("classname") not in (None, name):
        name = case.get("classname") + "::" + name
    # Of pytest-xdist: the group that kept the test with others.
    name = re.sub(r"@[\w.]+$", "", name)
    bad = [case.find(tag) for tag in ("failure", "error")]
    bad = [element for element in bad if element is not None]
    skip = case.find("skipped")
    if bad:
        outcome = "failed"
        reason = bad[0].get("message") or bad[0].text or ""
    elif skip is not None:
        outcome, reason = "skipped", skip.get("message") or ""
    else:
        outcome, reason = "passed", ""
    parts = cmocka_tests(case.findtext("system-out") or "")
    for part, word in parts:
        yield name + "." + part, word, "see the log"
    # A program may fail although each of its tests passed, and the other way.
    if not parts or (outcome != "passed" and
                     not any(word == outcome for _, word in parts)):
        yield name, outcome, reason


def main():
    part, results, allowed = sys.argv[1:]
    allowed = allowed_skips(allowed)
    count = {"passed": 0, "failed": 0, "skipped": 0}
    for case in xml.parse(results).getroot().iter("testcase"):
        for name, outcome, reason in outcomes(case):
            if outcome == "skipped" and not any(
                    fnmatch.fnmatchcase(part, p) and
                    fnmatch.fnmatchcase(name, n) for p, n in allowed):
                outcome, reason = "failed", "skip not allowed: " + reason
            count[outcome] += 1
            if outcome != "passed":
                print("  %s %s: %s" % (outcome, name,
                                       " ".join(reason.split())[:300]))
    print(count["passed"], count["failed"], count["skipped"])


if __name__ == "__main__":
    main()
