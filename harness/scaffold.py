"""`speedrun new`: a complete submission that changes nothing, to start from. It passes `check`, and is judged not better."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import UsageProblem
from harness.submission import BASELINE, MANIFEST, README, Submission

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

MANIFEST_TEXT = """\
# What this submission is. Every field: docs of `speedrun check`, and harness/submission.py.
name = "{name}"  # equals the folder's name
title = "{name}"  # one line, as the board shows it
summary = "An untouched copy of the baseline."  # what changed, in plain words
licence = "MIT"
parent = "baseline"  # the submission that this one builds on
# tracks = ["nano"]  # without this line: all tracks
# depths = [8, 24]  # lowest and highest depth at which you claim that it works; `check` builds it at each

[[author]]
name = "anonymous"
# kind = "agent"  # a program; without this line, a person
# url = "https://example.org"

# A part that `speedrun ablate` can turn off on its own, by config values or by the slot that falls back to the parent's:
# [[component]]
# name = "no_softcap"
# summary = "Logits are not capped."
# off = {{ softcap = 15.0 }}
"""

README_TEXT = """\
# {name}

An untouched copy of the baseline: say here what you changed, why it should help, and what you saw.

- **Idea.**
- **Change.** Slots overridden, and what is different in them.
- **Evidence.** Runs so far, the failed ones too.
"""

CONFIG_TEXT = '''\
"""The config slot: change hyper-parameters and switches. Delete this file if you change none.

The other slots are model.py, optimizer.py, schedule.py and kernels.py; baseline/contract.py shows the function of each.
"""

from __future__ import annotations

from baseline.config import TrainConfig


def configure(config: TrainConfig) -> TrainConfig:
    """The track's config comes in; what you return is trained. All fields are in baseline/config.py."""
    # return config.with_(warmdown_fraction=0.5)          change some fields
    # return config.at_depth(config.depth + 2)            another depth: width, batch, horizon and learning rates follow
    return config
'''


def new_submission(name: str, submissions_folder: Path) -> Path:
    """Write `submissions_folder/name` and return its path. Raises UsageProblem for a bad or taken name; writes nothing then."""
    if not NAME.fullmatch(name):
        mend = "use lower-case letters, digits and underscores, a letter first, at most 64"
        raise UsageProblem(f"the name '{name}' is not allowed", mend=mend)
    if name == BASELINE:
        raise UsageProblem("'baseline' is the baseline's own name", mend="choose another")
    folder = submissions_folder / name
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageProblem("exists already", where=str(folder), mend="choose another name") from error
    except OSError as error:
        raise UsageProblem(f"cannot be made: {error.strerror}", where=str(folder), mend="choose another place") from error
    (folder / MANIFEST).write_text(MANIFEST_TEXT.format(name=name), encoding="utf-8", newline="\n")
    (folder / README).write_text(README_TEXT.format(name=name), encoding="utf-8", newline="\n")
    (folder / "config.py").write_text(CONFIG_TEXT, encoding="utf-8", newline="\n")
    return Submission.load(folder).path
