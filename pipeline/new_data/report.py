"""What was found and chosen, in lines of at most 80 columns."""

import textwrap
from collections.abc import Iterable
from statistics import median

from pipeline.archives.sources import shown
from pipeline.config.data_schema import Data
from pipeline.data.dataset import NAMES, Splits
from pipeline.new_data.survey import Seen, Survey

_WIDTH, _MARGIN = 80, 14
_TOLD = 5  # pictures of a kind
_EVEN = 3  # the largest class is at most so many times the smallest


def found(survey: Survey, source: str) -> str:
    """Return what the survey found."""
    counts = survey.counts
    coloured = sum(picture.coloured for picture in survey.pictures)
    lines = [
        f"{len(survey.pictures):,} pictures of {len(counts)} classes",
        _item("source", source),
        _item("classes", _classes(survey)),
        _item("balance", _balance(survey)),
        _item("sizes", _sizes(survey.pictures)),
        _item("colour", f"{coloured:,} of the pictures" if coloured else "none: all are grey"),
        _item("unreadable", _some(f"{shown(n)} ({why})" for n, why in survey.unreadable)),
        _item("copies", _copies(survey)),
    ]
    return "\n".join(lines)


def chosen(data: Data, splits: Splits, groups: int) -> str:
    """Return what the definition says."""
    height, width, channels = data.shape
    colour = "colour" if channels == 3 else "grey"
    sizes = ", ".join(f"{len(getattr(splits, part)):,} {part}" for part in NAMES)
    group = f"{data.split.group}, {groups} groups; each is in one split" if groups else "none"
    lines = [
        "Chosen",
        _item("input", f"{width}x{height} {colour}, preparation {data.preparation.value}"),
        _item("split", sizes),
        _item("group", group),
    ]
    return "\n".join(lines)


def following(data: Data, file: str, *, sound: bool) -> str:
    """Return what to type next."""
    if not sound:
        return (
            f"{file} is written, but some pictures cannot be read.\n"
            "Repair or remove them, then repeat this with --force."
        )
    return f"""\
{file} is written: read it, and change what you know better.

Next
  data: {data.name}    in params.yaml, then: dvc repro
  python -m pipeline.register
  MODELS={data.registered_model} make serve
Or an experiment that leaves params.yaml as it is
  python train.py run=1 data={data.name}"""


def _item(title: str, words: str) -> str:
    indent = " " * _MARGIN
    first = f"  {title}".ljust(_MARGIN)
    return textwrap.fill(
        words, _WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )


def _some(items: Iterable[str]) -> str:
    names = list(items)
    more = f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else ""
    count = f"{len(names):,}: " if names else "none"
    return count + ", ".join(names[:_TOLD]) + more


def _classes(survey: Survey) -> str:
    counts = sorted(survey.counts.items())
    if len({count for _, count in counts}) == 1:
        return f"{counts[0][1]:,} of each: {', '.join(shown(label) for label, _ in counts)}"
    return ", ".join(f"{shown(label)} {count:,}" for label, count in counts)


def _balance(survey: Survey) -> str:
    (most, large), *_, (least, small) = survey.counts.most_common()
    if large <= _EVEN * small:
        return "even" if large == small else f"about even: {small:,} to {large:,} pictures"
    return f"uneven: {shown(least)} has {small:,}, {shown(most)} {large:,} pictures"


def _sizes(pictures: list[Seen]) -> str:
    sizes = sorted((picture.size for picture in pictures), key=max)
    if sizes[0] == sizes[-1]:
        return "{}x{}, all of them".format(*sizes[0])
    usual = tuple(round(median(size[axis] for size in sizes)) for axis in (0, 1))
    return "{}x{} to {}x{}, median {}x{}".format(*sizes[0], *sizes[-1], *usual)


def _copies(survey: Survey) -> str:
    copies = survey.copies
    if not copies:
        return "none"
    across = [same for same in copies if len({picture.label for picture in same}) > 1]
    told = _some(" = ".join(shown(picture.name) for picture in same) for same in across)
    extra = sum(len(same) - 1 for same in copies)
    return f"{extra:,} pictures are there already; of several classes: {told}"
