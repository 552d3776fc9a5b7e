"""Which bytes a set of public shards is: name, size and SHA-256 of each, and the revision they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from baseline.data.durable import read_sealed, seal, sha256_of, write_sealed
from baseline.data.errors import DataError
from baseline.data.progress import Tally


@dataclass(frozen=True, slots=True)
class LockedShard:
    """What a shard's file must be."""

    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True)
class ShardLock:
    """The shards of one dataset that are known so far. Entries are added, never changed."""

    repository: str
    revision: str | None
    """Commit of the dataset's repository; None while the shards came from a folder only."""
    shards: Mapping[str, LockedShard]

    @classmethod
    def read(cls, path: Path, repository: str) -> ShardLock:
        """The lock file, or an empty lock when there is none. Raises DataError when it is damaged or of another dataset."""
        if not path.exists():
            return cls(repository, None, {})
        content = read_sealed(path)
        if content["repository"] != repository:
            raise DataError(f"{path} locks the shards of {content['repository']}, not of {repository}: choose another folder")
        return cls(repository, content["revision"], {name: LockedShard(**shard) for name, shard in content["shards"].items()})

    def write(self, path: Path) -> None:
        """Write the lock file, sealed and durable, shards by name."""
        write_sealed(path, {**asdict(self), "shards": {name: asdict(self.shards[name]) for name in sorted(self.shards)}})

    def extended(self, found: Mapping[str, LockedShard], revision: str | None) -> ShardLock:
        """This lock and what was found. Raises DataError when a locked shard turns out to be another file."""
        for name, shard in found.items():
            if self.shards.get(name, shard) != shard:
                raise DataError(
                    f"{name} is not the file that is locked (SHA-256 {self.shards[name].sha256[:12]}…, found {shard.sha256[:12]}…)"
                )
        return replace(self, revision=self.revision or revision, shards={**self.shards, **found})

    def digest_of(self, names: Sequence[str]) -> str:
        """SHA-256 of what these shards are, names, sizes and digests: what a track pins. Raises KeyError for one that is not locked."""
        return seal({name: asdict(self.shards[name]) for name in sorted(names)})[0]

    def holds(self, folder: Path, name: str, tally: Tally) -> bool:
        """Whether `folder` has the shard, byte for byte."""
        path, shard = folder / name, self.shards[name]
        if not path.is_file() or path.stat().st_size != shard.size:
            tally.advance(shard.size)
            return False
        return sha256_of(path, tally) == shard.sha256


def measured(path: Path) -> LockedShard:
    """What a file on disk is."""
    return LockedShard(path.stat().st_size, sha256_of(path))
