"""The keys that requests are signed with."""

import configparser
import os
import threading
from collections.abc import Sequence
from typing import Protocol

import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import AWSConfigProvider, EnvAWSProvider, IamAwsProvider, Provider
from urllib3.exceptions import HTTPError

#: The metadata service of a cloud is near or not there.
_METADATA_TIMEOUT_S = 2.0


class NoCredentialsError(Exception):
    """No keys were given, and none were found."""


class Source(Protocol):
    """Something that may know keys."""

    def retrieve(self) -> Credentials:
        """Return them, or raise."""


class CredentialChain(Provider):
    """Asks each source for keys, and keeps to the first that knows some. Safe for several threads.

    Sources are asked again for each request: what runs for days sees keys that were renewed.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._found: Source | None = None
        self._lock = threading.Lock()
        #: Values that must not be shown.
        self.secrets: set[str] = set()

    def retrieve(self) -> Credentials:
        """Return keys that are good now.

        :raises NoCredentialsError: if there are none.
        """
        with self._lock:
            first = [self._found] if self._found else []
            for source in (*first, *self._sources):
                try:
                    credentials = source.retrieve()
                # what the sources raise where there is nothing, or what is there is damaged
                except (ValueError, KeyError, TypeError, AttributeError, OSError, HTTPError, configparser.Error):
                    continue
                self._found = source
                values = (credentials.access_key, credentials.secret_key, credentials.session_token)
                self.secrets.update(value for value in values if value)
                return credentials
        raise NoCredentialsError


def found_credentials() -> CredentialChain:
    """Return the chain for settings without keys: the environment, AWS's file, the machine's or container's role."""
    sources: list[Source] = [EnvAWSProvider(), AWSConfigProvider()]
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        client = urllib3.PoolManager(timeout=_METADATA_TIMEOUT_S, retries=False)
        sources.append(IamAwsProvider(http_client=client))
    return CredentialChain(sources)
