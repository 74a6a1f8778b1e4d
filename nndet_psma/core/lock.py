"""One process at work in a folder: a lock that names its holder and that no crash leaves behind for good."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from nndet_psma.core.atomic import is_running, temporary_beside
from nndet_psma.core.errors import UserError

LOCK_FILE = "lock.json"
STALE_MINUTES = 30.0
_BEAT_SECONDS = 30.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        host: name of the machine.
        pid: process.
        since: ISO time of the locking.
        born: when the process was started, in the kernel's clock ticks; tells a reused process number ("": unknown).
        token: of this very lock.
    """

    host: str
    pid: int
    since: str
    born: str
    token: str

    @classmethod
    def me(cls) -> Holder:
        """This process, now."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), now, _born(os.getpid()), uuid.uuid4().hex)


class FolderLock:
    """Holds ``lock.json`` in a folder while the block runs.

    A lock is stale, and taken over, when its process is gone from this machine, or, on another machine, when its
    heartbeat (the file's time of change) is older than ``STALE_MINUTES``. As a context manager it beats by itself,
    however long other people's code takes; who calls :meth:`acquire` calls :meth:`beat` now and then.

    Args:
        folder: is made where it is missing.
        held: what is said when another process holds it.

    Raises:
        UserError: another process holds it; names host, process and since when.
    """

    def __init__(self, folder: Path, held: str = "another training runs in this folder") -> None:
        self.file = folder / LOCK_FILE
        self._held = held
        self._holder: Holder | None = None
        self._beaten = 0.0
        self._left = threading.Event()

    def __enter__(self) -> FolderLock:
        self.acquire()
        self._left.clear()
        threading.Thread(target=self._keep_beating, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left.set()
        self.release()

    def acquire(self) -> None:
        """Take the lock, or raise."""
        mine = Holder.me()
        for _ in range(3):  # another process may take a stale lock at the same moment
            if self._create(mine):
                self._holder, self._beaten = mine, time.monotonic()
                return
            other = _read(self.file)
            if not self._is_stale(other):
                raise self._refusal(other)
            self._remove_stale(other)
        raise self._refusal(_read(self.file))

    def release(self) -> None:
        """Give the lock back; a lock that somebody else took over meanwhile is left alone."""
        if self._holder is not None and _read(self.file) == self._holder:
            self.file.unlink(missing_ok=True)
        self._holder = None

    def beat(self) -> None:
        """Say that the holder lives; cheap enough for every step."""
        if self._holder is not None and time.monotonic() - self._beaten > _BEAT_SECONDS:
            self._touch()
            self._beaten = time.monotonic()

    def _keep_beating(self) -> None:
        while not self._left.wait(_BEAT_SECONDS):
            self._touch()

    def _touch(self) -> None:
        with suppress(OSError):  # a file system that is away for a moment must not end a training
            os.utime(self.file)

    def _refusal(self, other: Holder | None) -> UserError:
        who = "unknown" if other is None else f"process {other.pid} on {other.host} since {other.since}"
        return UserError(
            self._held,
            file=self.file.parent,
            found=who,
            remedy=f"Wait for it or end it; if it is certainly dead, delete {self.file.name}",
        )

    def _create(self, holder: Holder) -> bool:
        """Write the lock unless there is one: a hard link fails where a file exists, and links a whole file."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        own = temporary_beside(self.file)
        text = json.dumps(asdict(holder), indent=2) + "\n"
        own.write_text(text)
        try:
            os.link(own, self.file)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return self._create_open(text)
        finally:
            own.unlink(missing_ok=True)
        return True

    def _create_open(self, text: str) -> bool:
        try:
            with self.file.open("x") as handle:
                handle.write(text)
        except FileExistsError:
            return False
        return True

    def _is_stale(self, other: Holder | None) -> bool:
        if other is None:  # gone meanwhile, or not written by us
            return True
        if other.host == socket.gethostname():
            return not _alive(other)
        try:
            age = time.time() - self.file.stat().st_mtime
        except FileNotFoundError:
            return True
        return age > 60 * STALE_MINUTES

    def _remove_stale(self, seen: Holder | None) -> None:
        """Move the lock aside first: only one process succeeds, and it sees whether it moved what it judged."""
        aside = temporary_beside(self.file)
        try:
            self.file.rename(aside)
        except FileNotFoundError:
            return
        if _read(aside) != seen:
            with suppress(FileExistsError):
                os.link(aside, self.file)
        aside.unlink()


def _read(file: Path) -> Holder | None:
    try:
        return Holder(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _alive(holder: Holder) -> bool:
    if not is_running(holder.pid):
        return False
    born = _born(holder.pid)
    return not born or not holder.born or born == holder.born


def _born(pid: int) -> str:
    """Start time of a process as Linux tells it; empty elsewhere."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]
