#!/usr/bin/env python3
"""Sums up the JUnit reports of ctest: names what failed and what was skipped and why, then one line of counts.

    tools/test_summary.py REPORT.xml...

Returns 1 if a test failed or could not run, or a report is missing.
"""
import collections
import os
import re
import sys
import xml.etree.ElementTree as ElementTree


def verdict(case):
    """passed, failed or skipped. ctest also writes `notrun` for a test whose program is missing: that is a failure."""
    status = case.get("status")
    if status == "run":
        return "passed"
    skipped = case.find("skipped")
    message = skipped.get("message", "") if skipped is not None else ""
    if status in ("notrun", "disabled") and "SKIP" in message.upper() or status == "disabled":
        return "skipped"
    return "failed"


def skip_reason(case):
    output = case.findtext("system-out") or ""
    match = re.search(r"^(?:SKIP: |.*Skipped\n)(.*)$", output, re.MULTILINE)
    return match.group(1).strip() if match else "no reason given"


def main():
    counts = collections.Counter()
    failed, skipped = [], collections.defaultdict(list)
    for path in sys.argv[1:]:
        kind = os.path.splitext(os.path.basename(path))[0]
        try:
            cases = ElementTree.parse(path).getroot().iter("testcase")
        except (OSError, ElementTree.ParseError) as error:
            print(f"no report of the {kind} tests: {error}")
            counts["failed"] += 1
            continue
        for case in cases:
            result = verdict(case)
            counts[result] += 1
            if result == "failed":
                failed.append(f"{kind}: {case.get('name')}")
            elif result == "skipped":
                skipped[skip_reason(case)].append(f"{kind}: {case.get('name')}")
    print()
    for reason, names in skipped.items():
        print(f"skipped ({reason}): {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}")
    for name in failed:
        print(f"FAILED {name}")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts else 0


if __name__ == "__main__":
    sys.exit(main())
