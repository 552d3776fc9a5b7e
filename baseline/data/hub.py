"""What is asked of the Hugging Face hub: what a dataset's shards are, and their bytes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event, Lock
from typing import Any

from baseline.data.durable import sha256_of
from baseline.data.errors import DataError
from baseline.data.lockfile import LockedShard, ShardLock
from baseline.data.progress import Tally

CLIENT_CACHE = ".cache/huggingface"
"""Where the client library keeps notes and partial files, those of killed downloads among them."""
ATTEMPTS = 5
FIRST_WAIT_S = 1.0
"""Pause before the second attempt; it doubles from attempt to attempt."""


def look_up(repository: str, revision: str | None, names: Sequence[str]) -> tuple[Mapping[str, LockedShard], str]:
    """(what the hub says that each shard is, the commit that says so), at `revision` or the newest.

    Raises ConnectionError when the hub gives no answer, and DataError when it has no such shard.
    """
    api = client().HfApi()
    try:
        commit = revision or str(api.dataset_info(repository).sha)
        files = api.get_paths_info(repository, list(names), revision=commit, repo_type="dataset")
    except Exception as error:  # the client's network errors have no common type across its versions
        raise ConnectionError(_reason(error)) from None
    found = {file.path: LockedShard(file.size, file.lfs.sha256) for file in files if file.lfs}
    if absent := [name for name in names if name not in found]:
        raise DataError(f"{repository} has no {absent[0]} at revision {commit}: check the dataset and its revision")
    return found, commit


def fetch_all(lock: ShardLock, folder: Path, names: Sequence[str], workers: int, tally: Tally) -> None:
    """Fetch shards into `folder` on `workers` threads; the first that fails for good stops the others and raises DataError."""
    stop = Event()
    pool = ThreadPoolExecutor(workers)
    try:
        jobs = [pool.submit(_fetch, lock, folder, name, _ShardProgress(lock.shards[name].size, tally, stop)) for name in names]
        wait(jobs, return_when=FIRST_EXCEPTION)
        for job in jobs:
            if job.done():
                job.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    shutil.rmtree(folder / CLIENT_CACHE, ignore_errors=True)


def client() -> Any:
    """The client library, which only downloads need. Raises DataError when it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise DataError(
            "downloading shards needs huggingface_hub: pip install 'speedrun[data]', or bring the shards with --from DIR"
        ) from None
    return huggingface_hub


class _ShardProgress:
    """Counts one shard's bytes into the tally, never more than its size, and takes them back when it has to start again."""

    def __init__(self, size: int, tally: Tally, stop: Event) -> None:
        self._size = size
        self._tally = tally
        self._stop = stop
        self._counted = 0
        self._lock = Lock()

    def advance(self, amount: float) -> None:
        """Count bytes. Raises InterruptedError, which ends the transfer, once another shard has failed for good."""
        if self._stop.is_set():
            raise InterruptedError("another shard could not be downloaded")
        with self._lock:
            step = min(int(amount), self._size - self._counted)
            self._counted += step
            self._tally.advance(step)

    def finish(self) -> None:
        """Count what is left: a transfer may report less than it brought."""
        self.advance(self._size)

    def restart(self) -> None:
        """Take back everything counted."""
        with self._lock:
            self._tally.advance(-self._counted)
            self._counted = 0

    def bar_class(self) -> type:
        """A tqdm class that reports here and draws nothing; the client library makes its bars from it."""
        progress, tqdm = self, client().utils.tqdm

        class Bar(tqdm):  # type: ignore[misc,valid-type]
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **{**options, "disable": True})
                progress.advance(options.get("initial") or 0)

            def update(self, n: float | None = 1) -> None:
                progress.advance(n or 0)

        return Bar


def _fetch(lock: ShardLock, folder: Path, name: str, progress: _ShardProgress) -> None:
    """Fetch one shard, resuming what an earlier attempt left, and verify it. Tries again after a pause, ATTEMPTS times in all."""
    expected, reason = lock.shards[name], ""
    where = {"repo_type": "dataset", "revision": lock.revision, "local_dir": folder}
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
        progress.restart()
        try:
            path = Path(client().hf_hub_download(lock.repository, name, tqdm_class=progress.bar_class(), **where))
        except InterruptedError:
            raise
        except Exception as error:  # as in look_up
            reason = _reason(error)
            continue
        if sha256_of(path) == expected.sha256:
            progress.finish()
            return
        path.unlink()
        reason = f"its SHA-256 is not {expected.sha256[:12]}…"
    raise DataError(f"{name} of {lock.repository} could not be downloaded in {ATTEMPTS} attempts ({reason}): try again, or use --from DIR")


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
