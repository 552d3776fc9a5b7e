"""Where a text may be cut so that the tokens of its pieces, one after another, are the tokens of the whole.

Byte-pair tokenizers of GPT-2's kind first split a text by a pattern, from left to right, and merge inside the parts only. A place
where U+0020 follows a character that is no white space is a safe cut under all patterns that `tokenizer` lists:

- no alternative holds a space behind a character that is no white space, so a part ends there in any case;
- the alternatives look ahead only behind white space, so the parts before the cut, which end in no white space, come out alike
  whether the text goes on or not;
- none looks behind, so the parts after the cut come out alike whatever stood before.

Prompts of few-shot tasks repeat each solved example hundreds of times. Cut into pieces, most of it is tokenized once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

Pieces = tuple[str, ...]
Cutter = Callable[[str, str], Pieces]
"""(stem, ending) -> the pieces of stem + ending, at least one."""

_SAFE = re.compile(r"(?<=[!-~]) ")
"""A space after a visible ASCII character. After others it would do too; these are no white space in any version of Unicode."""


def cut(stem: str, ending: str) -> Pieces:
    """At most four pieces: cut at the first safe place, at the last one within the stem, and at the last one.

    The cut in the middle makes what precedes it the same for every ending.
    """
    text = stem + ending
    first = _SAFE.search(text)
    if first is None:
        return (text,)
    places = sorted({first.start(), _last_safe(stem, first.start()), _last_safe(text, first.start())})
    return tuple(text[start:stop] for start, stop in zip([0, *places], [*places, len(text)], strict=True))


def uncut(stem: str, ending: str) -> Pieces:
    """One piece, for tokenizers of which nothing is known."""
    return (stem + ending,)


def joined(blocks: Iterable[Pieces]) -> list[str]:
    """Consecutive blocks as the pieces of one text: a block's last piece and the next block's first become one."""
    result = [""]
    for block in blocks:
        result[-1] += block[0]
        result.extend(block[1:])
    return result


def trimmed(parts: Sequence[str]) -> list[str]:
    """The pieces of a text without the white space around it. Pieces inside begin after a visible character, so two trims reach all."""
    ends = [*parts]
    ends[-1] = ends[-1].rstrip()
    ends[0] = ends[0].lstrip()
    return [part for part in ends if part]


def _last_safe(text: str, floor: int) -> int:
    """The last safe place in `text`, and `floor` where there is none behind it."""
    at = len(text)
    while (at := text.rfind(" ", 0, at)) > floor:
        if _SAFE.match(text, at):
            return at
    return floor
