"""What the server asks of the rank process, between the thread that hears it and the one that does it."""

import threading
from collections import deque

from .channel import Message


class WorkQueue:
    """What the server asks for, in its order; what may be run in the middle of a work can be taken at any time."""

    def __init__(self) -> None:
        self._messages: deque[Message | None] = deque()
        self._has_come = threading.Condition()

    def put(self, message: Message | None) -> None:
        """Add a message; ``None`` is the end."""
        with self._has_come:
            self._messages.append(message)
            self._has_come.notify()

    def get(self) -> Message | None:
        """Wait for the next message."""
        with self._has_come:
            self._has_come.wait_for(lambda: self._messages)
            return self._messages.popleft()

    def take_interjected(self) -> Message | None:
        """Return the first work that may be run in the middle of another, if there is one."""
        if not self._messages:  # asked at every boundary: without the lock, what comes now is taken at the next
            return None
        with self._has_come:
            for message in self._messages:
                if message is not None and message.values.get("is_interjected"):
                    self._messages.remove(message)
                    return message
        return None
