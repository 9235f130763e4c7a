"""The checks as JUnit, which CI systems show: a suite for the thresholds of the run, and one for each section."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from junitparser import Failure, JUnitXml, TestCase, TestSuite

from actor_load.record import Check, Record
from actor_load.report.overview import line

_NOT_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no room for, not even escaped; an error that a server answered may have it."""


def render(record: Record) -> bytes:
    """The document. A check lasts as long as what it is about: the section, or the run."""
    document = JUnitXml(_xml(record.title))
    document.append(_suite("thresholds", record.checks, record.started, record.ended, record))
    for section in record.sections:
        document.append(_suite(section.title, section.checks, section.started, section.ended, record))
    document.update_statistics()
    # Not the sums of what was checked at the same time.
    document.time = round(record.ended - record.started, 3)
    times = [(record.started, record.ended), *((section.started, section.ended) for section in record.sections)]
    for suite, (started, ended) in zip(document, times, strict=True):
        suite.time = round(ended - started, 3)
    content: bytes = document.tostring()
    return content


def _suite(title: str, checks: Sequence[Check], started: float, ended: float, record: Record) -> TestSuite:
    suite = TestSuite(_xml(title))
    suite.timestamp = datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds")
    for name, value in {**record.versions, **record.settings}.items():
        suite.add_property(_xml(name), _xml(value))
    for check in checks:
        case = TestCase(_xml(check.name), classname=_xml(title), time=round(ended - started, 3))
        if check.passed:
            case.system_out = _xml(check.detail)
        else:
            failure = Failure(_xml(line(check)))
            failure.text = _xml(check.detail)
            case.result = [failure]
        suite.add_testcase(case)
    return suite


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)
