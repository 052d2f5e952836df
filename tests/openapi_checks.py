"""Requests made up after an OpenAPI document, good ones and bad ones, and what the answers must be."""

import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis.checks import CHECKS, load_all_checks

CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)


def check_operation(operation, url, num_examples):
    """Try an operation of a server that often, each time with good or with bad values."""
    load_all_checks()
    wanted = [CHECKS.get_one(name) for name in CHECKED]
    modes = schemathesis.GenerationMode
    good, bad = (operation.as_strategy(generation_mode=mode) for mode in (modes.POSITIVE, modes.NEGATIVE))

    @settings(max_examples=num_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=strategies.one_of(good, bad))
    def check(case):
        case.call_and_validate(base_url=url, checks=wanted, timeout=60)

    check()
