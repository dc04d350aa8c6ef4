"""Tables of what `conf/` and `params.yaml` say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import yaml
from omegaconf import OmegaConf

from docs.figures.tables import ROOT, Table
from pipeline import config

COMMAND = "make figures"


class Leaf(NamedTuple):
    """A value of a YAML file: where it is in the text, and the comment on its line."""

    key: str
    value: str
    comment: str
    start: int
    end: int


def plain(name: str) -> dict[str, Any]:
    """A file of settings as Python has it."""
    return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(ROOT / name)))


def leaves(text: str) -> list[Leaf]:
    """Every value, in the file's order; those of a list have its key."""
    lines = text.splitlines()

    def below(node: yaml.Node, key: str) -> Iterator[Leaf]:
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                yield from below(value, f"{key}.{name.value}" if key else name.value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                yield from below(value, key)
        else:
            start, end = node.start_mark, node.end_mark
            comment = lines[end.line][end.column :].partition("# ")[2]
            yield Leaf(key, node.value, comment, start.index, end.index)

    return list(below(yaml.compose(text, yaml.SafeLoader), ""))


def _said(name: str, under: str = "") -> dict[str, tuple[str, str]]:
    """By key the values of a file, or of one part of it, as it writes them, and the comments."""
    found: dict[str, tuple[str, str]] = {}
    for leaf in leaves((ROOT / name).read_text()):
        if leaf.key.startswith(under):
            before = f"{found[leaf.key][0]}, " if leaf.key in found else ""
            # Markdown would take <run> for HTML.
            comment = re.sub(r"[\w/]*<\w+>[\w.]*", r"`\g<0>`", leaf.comment)
            found[leaf.key] = (before + leaf.value, comment)
    return found


def hyperparameters() -> Table:
    """The runs side by side, a row for each setting."""
    files = sorted((ROOT / "conf" / "run").glob("*.yaml"))
    runs = {file.stem: config.flat(plain(file.relative_to(ROOT).as_posix())) for file in files}
    keys = dict.fromkeys(key for settings in runs.values() for key in settings)
    rows = [[f"`{key}`", *(f"{run[key]}" for run in runs.values())] for key in keys]
    return Table(COMMAND, "", ["setting", *(f"run {name}" for name in runs)], rows)


def gates() -> Table:
    """What a champion must be, in the words of its file."""
    said = _said("conf/register.yaml", "gates.")
    rows = [[f"`{key.removeprefix('gates.')}`", *found] for key, found in said.items()]
    return Table(COMMAND, "", ["gate", "limit", "meaning"], rows)


def retrain() -> Table:
    """When a new model is due."""
    rows = [[f"`{key}`", *found] for key, found in _said("conf/retrain.yaml").items()]
    return Table(COMMAND, "", ["limit", "value", "meaning"], rows)


def data_sets() -> Table:
    """The data sets side by side, but for hashes: those of feedback are written by its export."""
    files = sorted((ROOT / "conf" / "data").glob("*.yaml"))
    said = [_said(file.relative_to(ROOT).as_posix()) for file in files]
    hidden = re.compile(r"files\..*|name|feedback(\.sha256)?")
    keys = dict.fromkeys(key for found in said for key in found if not hidden.fullmatch(key))
    rows = [[f"`{key}`", *(found.get(key, ("",))[0] for found in said)] for key in keys]
    for row in rows:
        if row[0] == "`mirrors`":
            row[1:] = ("<br>".join(f"`{each}`" for each in cell.split(", ")) for cell in row[1:])
    return Table(COMMAND, "", ["setting", *(f"`{file.stem}`" for file in files)], rows)


def defaults() -> Table:
    """What is built, taken and registered if nobody says otherwise."""
    by_hand = "of a stage that is run by hand and not told"
    search = "of `python -m pipeline.search`"
    wanted = [
        *(("params.yaml", key, "") for key in plain("params.yaml")),
        ("conf/config.yaml", "defaults.run", by_hand),
        ("conf/config.yaml", "defaults.data", by_hand),
        ("conf/search.yaml", "defaults.search", search),
        ("conf/search.yaml", "defaults.data", f"{search}, unless `params.yaml` picks"),
        ("conf/register.yaml", "model", "the registered model"),
        ("conf/register.yaml", "data", ""),
    ]
    rows = []
    for name, key, meaning in wanted:
        value, comment = _said(name)[key]
        shown = f"`{key.removeprefix('defaults.')}`"
        rows.append([f"`{name}`", shown, value, meaning or comment])
    return Table(COMMAND, "", ["file", "setting", "value", "meaning"], rows)


def search_plan() -> Table:
    """How a search goes on; what it may choose is in `search_space`."""
    said = _said("conf/search/optimized.yaml")
    rows = [
        [f"`{key}`", *found]
        for key, found in said.items()
        if not key.startswith(("fixed.", "space."))
    ]
    return Table(COMMAND, "", ["setting", "value", "meaning"], rows)


def search_space() -> Table:
    """What a search may choose, and what it holds fixed."""
    plan = plain("conf/search/optimized.yaml")
    text = (ROOT / "conf/search/optimized.yaml").read_text().split("\nspace:")[1]
    rows = []
    for key, limits in _spaces(plan["space"]):
        reason = re.search(rf"^ +{key.rpartition('.')[2]}: .*# (.*)$", text, re.MULTILINE)
        rows.append([f"`{key}`", _range(limits), reason[1] if reason else ""])
    rows += [[f"`{key}`", f"{value}", "fixed"] for key, value in config.flat(plan["fixed"]).items()]
    return Table(COMMAND, "", ["setting", "range", "why"], rows)


def _spaces(space: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in space.items():
        if {"low", "choices"} & value.keys():
            yield prefix + key, value
        else:
            yield from _spaces(value, f"{prefix}{key}.")


def _range(limits: dict[str, Any]) -> str:
    if "choices" in limits:
        return ", ".join(map(str, limits["choices"]))
    scale = ", logarithmic" if limits.get("log") else ""
    return f"{limits['low']} to {limits['high']}{scale}"


TABLES = {
    "defaults": defaults,
    "data-sets": data_sets,
    "hyperparameters": hyperparameters,
    "gates": gates,
    "retrain": retrain,
    "search-plan": search_plan,
    "search-space": search_space,
}
