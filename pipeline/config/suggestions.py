"""Suggest what a misspelt name was meant to be."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean <known name>?`, or nothing if no known name is similar.

    A dotted key is also found by its last part and by the initials of that part: both
    `learning_rate` and `lr` suggest `optimizer.learning_rate`.
    """
    spellings: dict[str, str] = {}
    for candidate in known:
        last = candidate.rpartition(".")[2]
        initials = "".join(word[:1] for word in last.split("_"))
        spellings |= {initials if "_" in last else last: candidate, last: candidate}
        spellings[candidate] = candidate
    close = [name.rpartition(".")[2]] if name.rpartition(".")[2] in spellings else []
    close = close or difflib.get_close_matches(name, spellings, n=1, cutoff=0.4)
    return f"; did you mean {spellings[close[0]]}?" if close else ""
