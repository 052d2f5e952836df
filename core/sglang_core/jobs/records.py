"""The record of a job, and the states it goes through."""

from collections.abc import Mapping
from typing import Any, Literal

from attrs import asdict, field, fields, frozen

from ..requests import MediaKind

JobStatus = Literal["queued", "in_progress", "cancelling", "completed", "failed", "cancelled"]

#: A job reaches exactly one of these, once, and stays there.
TERMINAL: frozenset[JobStatus] = frozenset({"completed", "failed", "cancelled"})

#: The states that may follow each state. ``in_progress -> queued`` is a job whose run was lost with its process.
NEXT_STATES: Mapping[JobStatus, frozenset[JobStatus]] = {
    "queued": frozenset({"in_progress", "failed", "cancelled"}),
    "in_progress": frozenset({"queued", "cancelling", "completed", "failed", "cancelled"}),
    "cancelling": frozenset({"completed", "failed", "cancelled"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


@frozen(kw_only=True)
class JobError:
    """Why a job failed, as its client is told. ``code`` is one word, for example ``out_of_memory``."""

    code: str
    message: str
    remedy: str = ""


#: What clients are told of a disk that is full: where it is, and whose folders those are, is for the server's log.
NOT_WRITTEN = JobError(
    code="output_not_written", message="the result can not be written", remedy="see in the server's log why"
)


@frozen(kw_only=True)
class JobOutput:
    """One file of a job.

    ``file`` is its name below the server's output folder, ``None`` once it is uploaded and deleted here; ``url`` is
    where a storage uploader put it. Before the upload has worked ``url`` is ``None`` and ``upload_error`` says why.
    """

    index: int
    kind: MediaKind
    media_type: str
    width: int
    height: int
    num_frames: int
    num_bytes: int
    seed: int
    file: str | None
    fps: float | None = None
    url: str | None = None
    #: Key of the uploader's object, with which it can be read, signed again, or deleted.
    object_key: str | None = None
    upload_error: str | None = None
    receipt: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class WebhookState:
    """How far the announcement of a finished job has come. Over when ``next_at`` is ``None``."""

    #: Deliveries tried so far.
    attempts: int = 0
    #: When the next one is due, in seconds since the epoch.
    next_at: float | None = None
    delivered_at: float | None = None
    #: Why the last delivery failed.
    problem: str | None = None


@frozen(kw_only=True)
class Job:
    """A request over HTTP and what became of it. Plain values all through, so that it can be stored as JSON.

    Times are seconds since the epoch (UTC). ``settings`` are the settings of the request as planning takes them
    (``prompt``, ``seed``, ``width``, ...); ``api`` is what only the API that took the request needs to answer
    (``size``, ``seconds``, ``model``, ``response_format``, ...).
    """

    id: str
    #: What its results are.
    kind: MediaKind
    #: The API operation it came from, for example ``images.generations``.
    operation: str
    created_at: float
    settings: Mapping[str, Any]
    api: Mapping[str, Any] = field(factory=dict)
    status: JobStatus = "queued"
    #: Name of the API key it belongs to; ``None`` on a server without keys. Never the key itself.
    owner: str | None = None
    #: Larger comes first.
    priority: int = 0
    idempotency_key: str | None = None
    #: Of what was asked for, by the API that took the request: two with one idempotency key must agree in it.
    request_digest: str | None = None
    webhook_url: str | None = None
    #: ``None`` until the job is over, and where nobody asked for an announcement.
    webhook: WebhookState | None = None
    #: How often its run was begun.
    attempts: int = 0
    #: From 0 to 1; only grows.
    progress: float = 0.0
    stage: str | None = None
    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    outputs: tuple[JobOutput, ...] = ()
    error: JobError | None = None
    #: Seconds of each stage.
    timings_s: Mapping[str, float] = field(factory=dict)
    #: Seconds of its run in which smaller jobs ran in its middle.
    paused_s: float = 0.0
    #: Largest device memory in use while it ran.
    peak_memory_bytes: int | None = None
    #: Files that the request brought (uploads), below the server's input folder; removed with the job.
    input_files: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """Say whether the job has reached its final state."""
        return self.status in TERMINAL

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values; :func:`job_from_json` reads it back."""
        values = {name: getattr(self, name) for name in _FIELDS}
        values["outputs"] = [asdict(output, recurse=False) for output in self.outputs]
        values["error"] = None if self.error is None else asdict(self.error)
        values["webhook"] = None if self.webhook is None else asdict(self.webhook)
        return values


#: In the order of the record.
_FIELDS = tuple(each.name for each in fields(Job))


def job_from_json(values: Mapping[str, Any]) -> Job:
    """Return the job that :meth:`Job.to_json` described.

    :raises TypeError: if a field is missing or unknown.
    """
    fields = dict(values)
    fields["outputs"] = tuple(JobOutput(**output) for output in fields.get("outputs", ()))
    fields["input_files"] = tuple(fields.get("input_files", ()))
    if fields.get("error") is not None:
        fields["error"] = JobError(**fields["error"])
    if fields.get("webhook") is not None:
        fields["webhook"] = WebhookState(**fields["webhook"])
    return Job(**fields)


def check_change(before: Job, after: Job) -> None:
    """See that a job may become another, for stores.

    :raises ValueError: if the new status may not follow the old one (``NEXT_STATES``), or it is another job.
    """
    if after.id != before.id:
        raise ValueError(f"job {before.id} can not become job {after.id}")
    if after.status != before.status and after.status not in NEXT_STATES[before.status]:
        raise ValueError(f"job {before.id} is {before.status} and can not become {after.status}")
