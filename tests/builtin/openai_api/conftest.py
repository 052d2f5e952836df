"""Clients of the server ``api`` that a module of tests makes."""

import httpx
import openai
import pytest


@pytest.fixture(scope="module")
def client(api):
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(api):
    with httpx.Client(base_url=api.url, timeout=60) as client:
        yield client
