"""Where a study lives: an Optuna Journal file beside a folder of checkpoints, or any database URL.

Workers join by opening the same storage. What a dead worker was doing is found and queued again: for a Journal file
by the operating system's file locks (a killed process frees its lock at once), for a database by Optuna's heartbeat.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
import uuid
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from vlbias.errors import ConfigError, MissingDependencyError, VlbiasError
from vlbias.files import make_folder, open_plain, refuse_links, writing
from vlbias.locks import FileLock
from vlbias.postgres import is_url, named_job, shown_error, with_driver, without_password
from vlbias.runstore import cut_torn_line, differences, files_beside
from vlbias.sqlite import refuse_large, refuse_programs, refuse_side_files

__all__ = ["CONFIGURATION", "REASON", "SURPLUS", "Storage", "attempts_of", "quiet_optuna", "root_of", "roots"]

#: Name of a study that was given none.
_NAME = "search"
#: Version of what is written into a study; a file of another version is refused.
FORMAT = 1
_HEADER, _WORKER, _ROOT = "vlbias", "worker", "root"
#: Attributes of a trial: why it failed, what it trained, that it was one too many.
REASON, CONFIGURATION, SURPLUS = "reason", "configuration", "surplus"
_HEARTBEAT_S, _GRACE_S = 30, 120
#: Workers that start together on an empty database may fail to make its tables, but not for long.
_TABLE_TRIES = 8
#: A file that is read as a whole has at most so many bytes, lines or rows: those of some 8,000 trials.
_MAX_BYTES, _MAX_RECORDS = 2**27, 150_000
#: A trial that nobody signed for this long lost its worker between two writes.
_UNSIGNED_S = 60.0


def _sqlite_file(url: str | None) -> Path | None:
    """The file of ``sqlite:///study.db``; None for other databases, and for one in memory."""
    dialect, _, file = (url or "").partition(":///")
    file = file.partition("?")[0]
    return Path(file) if dialect.startswith("sqlite") and file and file != ":memory:" else None


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna's own log lines (one a trial, a traceback a failed trial) are replaced by our progress and table."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


class Storage:
    """One study in one place.

    Args:
        location: path of a Journal file (made if absent), or a database URL such as ``sqlite:///study.db`` or
            ``postgresql://...``, which may end in ``#NAME``, of one study among several (the first needs none); None
            keeps the study in memory, for this process alone.
        folder: for checkpoints and refits; beside a Journal or SQLite file by default (``study.log.files``, of a study
            with a name in a folder of that name). With another database it must be given, on a disk that all workers
            share, or nothing is kept.

    Raises:
        ConfigError: the file is not a Journal file, or the URL cannot be opened.
        OutputError: the file is a link, or one lies in the folder beside it.
    """

    def __init__(self, location: str | Path | None, *, folder: str | os.PathLike[str] | None = None):
        self.name, self.worker, self.url = _NAME, uuid.uuid4().hex[:12], None
        if location is not None and is_url(location):
            url, self.name = named_job(str(location), _NAME)
            self.url = with_driver(url)
        self.path = Path(location) if location is not None and self.url is None else None
        if folder is not None:
            self.folder: Path | None = Path(folder)
        else:
            file = self.path or _sqlite_file(self.url)
            self.folder = None if file is None else files_beside(file)
            if self.folder is not None and self.name != _NAME:
                self.folder /= self.name
        self.optuna_storage = self._open()
        self._lock: FileLock | None = None

    def _open(self) -> Any:
        if self.url is not None:
            if (file := _sqlite_file(self.url)) is not None:
                _check_sqlite(file)
            return _open_database(self.url)
        if self.path is None:
            return optuna.storages.InMemoryStorage()
        from optuna.storages.journal import JournalFileBackend

        make_folder(self.path.parent)
        refuse_links(self.path, files_beside(self.path))
        lock: Any = _JournalLock(self.path)
        with lock.held, writing(self.path):
            _mend_journal(self.path)
        try:
            return optuna.storages.JournalStorage(JournalFileBackend(str(self.path), lock_obj=lock))
        except Exception as error:
            raise ConfigError(
                f"{self.path} is not a readable study ({error}). Give another file as `storage`."
            ) from error

    def study(self, directions: int, header: dict[str, object] | None) -> optuna.Study:
        """Make the study or join it.

        Args:
            directions: number of objectives; all are minimised.
            header: the settings that must agree between workers; None to open an existing study for reading.

        Raises:
            ConfigError: no such study, another version, or other settings; each that differs is named.
        """
        try:
            existing = {s.study_name for s in optuna.get_all_study_summaries(self.optuna_storage)}
        except Exception as error:
            raise ConfigError(
                f"Cannot read studies from {self.path or 'the database'}: {shown_error(error, self.url or '')}"
            ) from error
        if header is None and self.name not in existing:
            found = ", ".join(sorted(existing)) or "none"
            raise ConfigError(f"No study '{self.name}' in {self.path or 'the database'}. Available: {found}.")
        with quiet_optuna():
            if header is None:
                study = optuna.load_study(study_name=self.name, storage=self.optuna_storage)
            else:
                study = optuna.create_study(
                    storage=self.optuna_storage,
                    study_name=self.name,
                    directions=["minimize"] * directions,
                    load_if_exists=True,
                )
        stored = study.user_attrs.get(_HEADER)
        if stored is None:
            if header is None or (self.name in existing and study.get_trials(deepcopy=False)):
                raise ConfigError(
                    f"{self.path or self.name} has a study that vlbias did not make. Give another storage."
                )
            study.set_user_attr(_HEADER, {"format": FORMAT, **header})
            return study
        version = stored.get("format") if isinstance(stored, dict) else None
        if version != FORMAT:
            raise ConfigError(f"The study has format {version!r:.40}; this version reads {FORMAT}. Give a new storage.")
        if header is not None:
            phrases = differences({key: value for key, value in stored.items() if key != "format"}, header)
            if phrases:
                own_name = "" if self.url is None else " (--study-name, or #NAME at the end of the URL)"
                raise ConfigError(
                    f"The storage has a study with other settings: {', '.join(phrases[:3])}. "
                    f"Join with the same settings or give another storage{own_name}."
                )
        return study

    def sign_in(self) -> None:
        """Say that this worker lives, until :meth:`sign_out` or death."""
        if self.path is not None and self.folder is not None:
            self._lock = FileLock(self.folder / "workers" / f"{self.worker}.lock")
            while self._lock.acquire() and not self._lock.path.exists():
                self._lock.release()  # somebody took it for that of a dead worker, before it was locked
            for path in (self.folder / "workers").glob("*.lock"):
                if path != self._lock.path:
                    _clear_if_dead(path)

    def sign_out(self) -> None:
        """Say that this worker has ended."""
        if self._lock is not None:
            self._lock.release()
            self._lock.path.unlink(missing_ok=True)
            self._lock = None

    def sign(self, trial: optuna.Trial, root: int) -> None:
        """Put this worker's name under a trial, and the trial's place in the study."""
        trial.set_user_attr(_WORKER, self.worker)
        trial.set_user_attr(_ROOT, root)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get(_WORKER)
        if worker == self.worker:
            return False
        if worker is None:
            started = trial.datetime_start
            return started is not None and time.time() - started.timestamp() > _UNSIGNED_S
        if self.folder is None:
            return False
        if not isinstance(worker, str) or not re.fullmatch(r"[0-9a-f]{12}", worker):
            return True  # the name of no worker, and no part of a path
        path = self.folder / "workers" / f"{worker}.lock"
        return not path.exists() or _clear_if_dead(path)  # without one it signed out

    def recover(self, study: optuna.Study) -> list[int]:
        """Queue again what dead workers left behind; returns the numbers of the trials that were lost.

        Safe to run from any number of workers at any time: whoever marks a trial first queues it, and a copy queued
        twice is recognised by its number (see :func:`roots`).
        """
        if self.path is not None:
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if self._is_dead(trial):
                    # Somebody else may have marked it meanwhile; then the error says so and nothing is left to do.
                    _try_fail(study, trial)
        elif self.url is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(study)
        trials = study.get_trials(deepcopy=False)
        followed = {trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs}
        lost = [
            trial
            for trial in trials
            # A trial that failed by itself says why; one without a reason lost its worker.
            if trial.state == TrialState.FAIL and REASON not in trial.user_attrs and trial.number not in followed
        ]
        for trial in lost:
            kept = {key: value for key, value in trial.user_attrs.items() if key != _WORKER}
            # Half-drawn parameters are drawn again: draws depend on the first number, so they come out the same.
            drawn = CONFIGURATION in trial.user_attrs
            study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.WAITING,
                    params=trial.params if drawn else {},
                    distributions=trial.distributions if drawn else {},
                    user_attrs={**kept, _ROOT: root_of(trial, trials), "retry_of": trial.number},
                )
            )
        return [trial.number for trial in lost]


def _clear_if_dead(path: Path) -> bool:
    """Whether nobody holds a worker's lock, which is then removed."""
    lock = FileLock(path)
    if not lock.acquire(wait=False):
        return False
    path.unlink(missing_ok=True)
    lock.release()
    return True


def _try_fail(study: optuna.Study, trial: FrozenTrial) -> None:
    # A trial that somebody else marked meanwhile can no longer be updated: then the work is done.
    with suppress(optuna.exceptions.UpdateFinishedTrialError, RuntimeError, ValueError):
        study.tell(trial.number, state=TrialState.FAIL)


def root_of(trial: FrozenTrial, trials: Iterable[FrozenTrial]) -> int:
    """The place of a trial in the study, 0, 1, 2, ...: its number, not counting retries and surplus trials.

    A trial that is queued again keeps its place; seeds and the table go by it, so they are those of a study in which
    no worker died.
    """
    return _places(trials)(trial)


def _places(trials: Iterable[FrozenTrial]) -> Callable[[FrozenTrial], int]:
    """:func:`root_of` for many trials of one study."""
    counted = sorted(
        other.number for other in trials if "retry_of" not in other.user_attrs and SURPLUS not in other.user_attrs
    )

    def place(trial: FrozenTrial) -> int:
        return int(trial.user_attrs[_ROOT]) if _ROOT in trial.user_attrs else bisect_left(counted, trial.number)

    return place


def roots(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Place -> the attempt that counts: a finished one, else one that runs or waits, else the last.

    Surplus trials (two workers asked for the last place at once) are left out.
    """
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 0, TrialState.RUNNING: 2, TrialState.WAITING: 3}

    def priority(trial: FrozenTrial) -> tuple[int, int]:
        own_failure = trial.state == TrialState.FAIL and REASON in trial.user_attrs
        return (1 if own_failure else order.get(trial.state, 4), trial.number)

    place, chosen = _places(trials), dict[int, FrozenTrial]()
    for trial in trials:
        if SURPLUS in trial.user_attrs:
            continue
        root = place(trial)
        if root not in chosen or priority(trial) < priority(chosen[root]):
            chosen[root] = trial
    return dict(sorted(chosen.items()))


def attempts_of(trials: Sequence[FrozenTrial]) -> Counter[int]:
    """Place -> how often its trial was begun."""
    return Counter(map(_places(trials), trials))


def _check_sqlite(file: Path) -> None:
    """A study that somebody else made must be tables alone."""
    refuse_side_files(file)
    if file.exists():
        try:
            open_plain(file).close()
            with closing(sqlite3.connect(file, timeout=60)) as database:
                refuse_programs(database, file)
                refuse_large(database, file, _MAX_RECORDS)
        except VlbiasError:
            raise
        except (OSError, sqlite3.DatabaseError) as error:
            raise ConfigError(f"{file} is not a readable study ({error}). Give another file as `storage`.") from error


def _open_database(url: str) -> Any:
    """The database as Optuna opens it; workers that make its tables at the same time get in each other's way once."""
    for retry in range(_TABLE_TRIES):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.storages.RDBStorage(
                    url,
                    heartbeat_interval=_HEARTBEAT_S,
                    grace_period=_GRACE_S,
                    engine_kwargs={"pool_pre_ping": True},
                )
        except Exception as error:
            made_meanwhile = "already exists" in str(error) or "unique" in str(error).lower()
            if made_meanwhile and retry + 1 < _TABLE_TRIES:
                time.sleep(0.2 * (retry + 1))
                continue
            if isinstance(error, ImportError):
                raise MissingDependencyError(
                    f"The database {without_password(url)} needs its driver: pip install 'vlbias[postgres]'."
                ) from None
            # its cause may quote the URL, password and all
            raise ConfigError(f"Cannot open the database {without_password(url)}: {shown_error(error, url)}") from None
    raise AssertionError  # the last try returns or raises


class _JournalLock:
    """What Optuna wants of a lock, as one of ours: a killed worker frees it at once, and nobody waits for a time-out.

    Whoever takes it first cuts off what a killed worker left of its line, so that the next line stands for itself.
    """

    def __init__(self, journal: Path):
        self.journal, self.held = journal, FileLock(files_beside(journal) / "journal.lock")

    def acquire(self) -> bool:
        self.held.acquire()
        if self.journal.is_file():
            cut_torn_line(self.journal)
        return True

    def release(self) -> None:
        self.held.release()


def _mend_journal(path: Path) -> None:
    """Check that a file is a Journal (JSON lines with an operation code) and cut a torn last line off.

    Raises:
        ConfigError: it is something else, or a line before the last is damaged; the line is named.
    """
    if not path.is_file():
        if path.exists():
            raise ConfigError(f"`storage` must be a file or a database URL; {path} is a folder, a pipe or a device.")
        return
    num_bytes = path.stat().st_size
    lines = path.read_bytes().split(b"\n") if num_bytes <= _MAX_BYTES else []
    if not 0 < len(lines) <= _MAX_RECORDS:
        raise ConfigError(
            f"{path} has {num_bytes:,} bytes in {len(lines) or 'more'} lines; of a study at most {_MAX_BYTES:,} bytes "
            f"and {_MAX_RECORDS:,} lines are read. Give another file as `storage`."
        )
    if lines[0] and not _is_record(lines[0]):
        raise ConfigError(f"{path} is not a study (no Journal file of Optuna). Give another file as `storage`.")
    for number, line in enumerate(lines[:-1], start=1):
        if not _is_record(line):
            raise ConfigError(
                f"Line {number} of {path} is damaged. Remove that line to go on with the others, "
                "or give another file as `storage`."
            )
    cut_torn_line(path)


def _is_record(line: bytes) -> bool:
    try:
        return "op_code" in json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return False
