"""Fail when a test named in the first file did not pass in the JUnit report of the second."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main() -> int:
    """Compare the list with the report; exit status 1 if a test is absent."""
    names = [line.strip() for line in Path(sys.argv[1]).read_text().splitlines()]
    wanted = {name for name in names if name and not name.startswith("#")}
    cases = ET.parse(sys.argv[2]).getroot().iter("testcase")  # noqa: S314 - our own report
    passed = {f"{case.get('classname')}::{case.get('name')}": len(case) == 0 for case in cases}
    absent = sorted(name for name in wanted if not _all_passed(name, passed))
    for name in absent:
        sys.stderr.write(f"required test did not pass (skipped or missing): {name}\n")
    return 1 if absent else 0


def _all_passed(name: str, passed: dict[str, bool]) -> bool:
    """Whether there are tests of that name or prefix, and each of them passed."""
    found = [ok for test, ok in passed.items() if test.startswith(name)]
    return bool(found) and all(found)


if __name__ == "__main__":
    sys.exit(main())
