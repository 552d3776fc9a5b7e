"""A track: the fixed task that entries race on. One TOML file each, in `harness/tracks/`."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from baseline.config import ConfigError, Dial, TrainConfig
from baseline.config_types import value_problem
from baseline.data.manifest import MAX_VOCAB_SIZE
from harness.cost import ReferencePrice
from harness.errors import UsageProblem
from harness.record import Finite, Name, Sha256, Slug
from harness.ruleset import Ruleset

TRACKS_FOLDER = Path(__file__).parent / "tracks"
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PRESENTATION = {"title", "hardware", "data_title", "description", "provisional", "pairs", "price"}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Launch(_Section):
    """How a run is started."""

    device: Literal["cpu", "cuda"]
    processes: Count
    threads_per_process: Count


class Task(_Section):
    """The baseline's dial on this track."""

    depth: Count
    tokens_per_parameter: Positive
    aspect_ratio: Count
    head_dim: Count
    reference_batch_tokens: Count
    max_batch_tokens: Count | None = None
    short_window_multiple: Count
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of TrainConfig that this track fixes beside the dial."""

    @field_validator("config")
    @classmethod
    def _typed(cls, config: dict[str, Any]) -> dict[str, Any]:
        for name, value in config.items():
            if problem := value_problem(name, value):
                raise ValueError(problem)
        return config


class Data(_Section):
    """What is trained on and scored on. A digest that is absent has not been measured yet: the track is provisional."""

    corpus: Literal["docstrings", "climbmix", "fineweb-edu"]
    train_shards: Count | None = None
    """The first shards of a public corpus are trained on, and its last one is held out. Absent for the embedded corpus."""
    vocab_size: Annotated[int, Field(ge=1, le=MAX_VOCAB_SIZE)]
    sequence_len: Count
    val_rows: Count
    """Rows of the validation split that are scored."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """Commit of the public corpus's repository; while absent, the newest at the first download."""
    shards_digest: Sha256 | None = None
    """Of names, sizes and SHA-256 of the public corpus's shards, as their lock file has them."""
    corpus_digest: Sha256 | None = None
    tokenizer_digest: Sha256 | None = None
    train_rows_digest: Sha256 | None = None
    val_rows_digest: Sha256 | None = None

    @model_validator(mode="after")
    def _shards_of_a_public_corpus(self) -> Self:
        if self.is_public and self.train_shards is None:
            raise ValueError(f"train_shards is missing: say how many shards of {self.corpus} are trained on")
        if not self.is_public and (self.train_shards, self.revision, self.shards_digest) != (None, None, None):
            raise ValueError("train_shards, revision and shards_digest belong to a public corpus: take them away")
        return self

    @property
    def is_public(self) -> bool:
        """Whether the text has to be downloaded or brought."""
        return self.corpus != "docstrings"

    @property
    def is_pinned(self) -> bool:
        """Whether every digest of the result is known."""
        return None not in (self.corpus_digest, self.tokenizer_digest, self.train_rows_digest, self.val_rows_digest)


class Target(_Section):
    metric: Literal["val_bpb", "core"]
    value: Finite
    sigma: Positive
    """Pinned: the upper 80 % bound of the seeds' standard deviation."""
    sigma_source: str


class Limits(_Section):
    """What a run may use before it is void."""

    warmup_s: Positive
    """From the first hello to the last `ready`."""
    run_s: Positive
    """From `go` to `done`."""
    silence_s: Positive
    """Between two signs of life of a rank while the clock runs."""
    memory_bytes: Count
    """Resident memory of all ranks together."""
    scratch_bytes: Count
    """Everything a run writes, and each file of it."""
    submission_bytes: Count
    op_tolerance: Positive
    """Largest relative error of a replaced op against its reference."""


class Price(_Section):
    """The pinned price of the track's machine: it makes costs comparable for ever."""

    usd_per_hour: Positive
    basis: str


class Track(_Section):
    """Everything that a track fixes, its ruleset included."""

    name: Name
    version: Slug
    title: str
    hardware: str
    data_title: str
    description: str
    provisional: tuple[str, ...] = ()
    """What has not been measured yet, one line each; empty for a track whose records count."""
    pairs: Count
    """Interleaved pairs that `submit` runs unless told otherwise."""
    baseline_digest: Sha256
    launch: Launch
    task: Task
    data: Data
    target: Target
    limits: Limits
    price: Price
    ruleset: Ruleset

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides; a better description makes no new track."""
        decides = self.model_dump(mode="json", exclude=PRESENTATION)
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def reference_price(self) -> ReferencePrice:
        return ReferencePrice(table_id=f"track {self.version}", usd_per_hour=self.price.usd_per_hour)

    def dial(self) -> Dial:
        task = self.task
        return Dial(
            vocab_size=self.data.vocab_size,
            sequence_len=self.data.sequence_len,
            tokens_per_parameter=task.tokens_per_parameter,
            aspect_ratio=task.aspect_ratio,
            head_dim=task.head_dim,
            reference_batch_tokens=task.reference_batch_tokens,
            max_batch_tokens=task.max_batch_tokens,
            short_window_multiple=task.short_window_multiple,
        )

    def base_config(self) -> TrainConfig:
        """The baseline's config on this track; an entry's `configure` starts from it."""
        return TrainConfig.from_depth(self.task.depth, self.dial(), **self.task.config)


def load_track(name: str, folder: Path = TRACKS_FOLDER) -> Track:
    """Read `folder/<name>.toml`; raises UsageProblem naming file, field and mend."""
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(track_names(folder)) or "none"
        raise UsageProblem(f"there is no track {name!r}; choose one of: {known}")
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageProblem(f"not valid TOML ({error})", where=path.name, mend="mend that line") from None
    try:
        track = Track.model_validate(values)
        track.base_config()
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageProblem(f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}", where=path.name) from None
    except ConfigError as error:
        raise UsageProblem(f"task: {error}", where=path.name) from None
    if track.name != name:
        raise UsageProblem(f"name: {track.name!r} differs from the file's name", where=path.name, mend="make them equal")
    return track


def track_names(folder: Path = TRACKS_FOLDER) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.toml"))
