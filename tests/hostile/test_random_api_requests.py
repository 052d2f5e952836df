"""Hundreds of requests for each operation of the API, made up after the server's own OpenAPI document.

The short form is ``test_server_does_what_its_document_says``. The long form takes minutes:
``SGLANG_TEST_LONG=1``, or the number of requests for each operation.
"""

import os

import httpx
import pytest
import schemathesis
from api_server import live_api
from openapi_checks import check_operation

LONG = os.environ.get("SGLANG_TEST_LONG", "")
NUM_EXAMPLES = int(LONG) if LONG.isdigit() and LONG != "1" else 300
pytestmark = [
    pytest.mark.skipif(not LONG, reason="takes minutes; set SGLANG_TEST_LONG=1"),
    pytest.mark.timeout(4 * 3600),
]


@pytest.mark.parametrize("kind", ["image", "video"])
def test_every_operation_answers_what_its_document_says(kind, tmp_path):
    with live_api(tmp_path, kind, takes_image=True) as api:
        schema = schemathesis.openapi.from_dict(httpx.get(f"{api.url}/openapi.json").json())
        operations = [operation.ok() for operation in schema.get_all_operations()]
        failures = {}
        for operation in operations:
            try:
                check_operation(operation, api.url, NUM_EXAMPLES)
            except Exception as error:  # the others are tried as well
                failures[operation.label] = f"{type(error).__name__}: {error}"

        assert len(operations) > 15
        assert failures == {}
        assert httpx.get(f"{api.url}/liveness").status_code == 200
