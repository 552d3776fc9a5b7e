"""A track: the fixed task that entries race on. One TOML file each, in `harness/tracks/`."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from baseline.config import ConfigError, Dial, TrainConfig
from harness.cost import ReferencePrice
from harness.errors import UsageProblem
from harness.record import Name, Sha256
from harness.ruleset import Ruleset

TRACKS_FOLDER = Path(__file__).parent / "tracks"
PRESENTATION = {"title", "hardware", "data_title", "description", "provisional", "pairs", "price"}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Launch(_Section):
    """How a run is started."""

    device: Literal["cpu", "cuda"]
    processes: Annotated[int, Field(ge=1)]
    threads_per_process: Annotated[int, Field(ge=1)]


class Task(_Section):
    """The baseline's dial on this track."""

    depth: int
    tokens_per_parameter: float
    aspect_ratio: int
    head_dim: int
    reference_batch_tokens: int
    max_batch_tokens: int | None = None
    short_window_multiple: int
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of TrainConfig that this track fixes beside the dial."""


class Data(_Section):
    """What is trained on and scored on. A digest that is absent has not been measured yet: the track is provisional."""

    corpus: Literal["docstrings", "climbmix"]
    vocab_size: int
    sequence_len: int
    val_rows: int
    """Rows of the validation split that are scored."""
    corpus_digest: Sha256 | None = None
    tokenizer_digest: Sha256 | None = None
    train_rows_digest: Sha256 | None = None
    val_rows_digest: Sha256 | None = None


class Target(_Section):
    metric: Literal["val_bpb", "core"]
    value: float
    sigma: float
    """Pinned: the upper 80 % bound of the seeds' standard deviation."""
    sigma_source: str


class Limits(_Section):
    """What a run may use before it is void."""

    warmup_s: float
    """From the first hello to the last `ready`."""
    run_s: float
    """From `go` to `done`."""
    silence_s: float
    """Between two signs of life of a rank while the clock runs."""
    memory_bytes: int
    """Resident memory of all ranks together."""
    scratch_bytes: int
    """Everything a run writes, and each file of it."""
    submission_bytes: int
    op_tolerance: float
    """Largest relative error of a replaced op against its reference."""


class Price(_Section):
    """The pinned price of the track's machine: it makes costs comparable for ever."""

    usd_per_hour: float
    basis: str


class Track(_Section):
    """Everything that a track fixes, its ruleset included."""

    name: Name
    version: str
    title: str
    hardware: str
    data_title: str
    description: str
    provisional: tuple[str, ...] = ()
    """What has not been measured yet, one line each; empty for a track whose records count."""
    pairs: int
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
        raise UsageProblem(f"{path.name}: not valid TOML ({error}); mend that line") from None
    try:
        track = Track.model_validate(values)
        track.base_config()
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageProblem(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ConfigError as error:
        raise UsageProblem(f"{path.name}: [task]: {error}") from None
    return track


def track_names(folder: Path = TRACKS_FOLDER) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.toml"))
