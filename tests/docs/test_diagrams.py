"""What stands in a diagram is in the code: modules, classes, members, paths."""

import ast
import re
from functools import cache

import pytest
from documents import documents, sources
from test_paths import is_there, named

# Of other programs, of the machine, or what a C4 diagram calls the whole.
THEIRS = {
    *("Alertmanager", "CORSMiddleware", "Digit platform", "Grafana", "MLflow", "Prometheus"),
    *("STATE_DIR", "and DVC's cache", "the stages of pipeline/"),
}
BLOCKS = [
    pytest.param(block.code, id=f"{block.document}-{block.line}")
    for document in documents()
    for block in document.blocks()
    if block.language == "mermaid"
]


@cache
def modules():
    """The syntax tree of each module of ours, by its dotted name."""
    return {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): ast.parse(text)
        for path, text in sources().items()
        if path.suffix == ".py"
    }


def called(name):
    """The modules that a diagram may mean by that name: `guard`, or `serve.guard`."""
    return {full: tree for full, tree in modules().items() if f".{full}".endswith(f".{name}")}


def defined(tree):
    """What is defined in a module or class, also by assigning to `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@cache
def classes():
    """The classes of that name, for each name."""
    found = {}
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


@cache
def functions():
    """The names of the arguments of all functions of that name."""
    found = {}
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                names = {each.arg for each in (*given.args, *given.kwonlyargs, *given.posonlyargs)}
                found.setdefault(node.name, []).append(names)
    return found


def is_ours(name):
    """Whether it is a module, what a module or class defines, a class, or a file."""
    name = name.removesuffix("@n")
    place, _, what = name.rpartition(".")
    within = [*called(place).values(), *classes().get(place, ())] if place else []
    return (
        bool(called(name))
        or name in classes()
        or any(what in set(defined(tree)) for tree in within)
        or is_there(name)
        # A module that stages share may be told by its folder.
        or any(full.startswith(f"{name}.") for full in modules())
    )


@pytest.mark.parametrize("code", BLOCKS)
def test_what_is_bold_is_in_the_code(code):
    bold = {
        name
        for text in re.findall(r"<b>(.*?)</b>", code)
        for name in ([text] if text in THEIRS else re.split(r",? ", text))
    }
    assert {name for name in bold - THEIRS if not is_ours(name.rstrip("/"))} == set()


@pytest.mark.parametrize("code", BLOCKS)
def test_a_dotted_name_is_in_the_code(code):
    text = re.sub(r"<[^>]*>|\bconf/\S*", " ", code)
    dotted = set(re.findall(r"(?<![\w/.])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?![\w/])", text))
    assert {name for name in dotted if not is_ours(name) and name != "ghcr.io"} == set()


@pytest.mark.parametrize("code", BLOCKS)
def test_a_path_of_a_file_is_known(code):
    # A diagram shows the pipeline of one data set.
    text = re.sub(r"data/(raw|processed)/mnist", r"data/\1/<data>", code)
    text = re.sub(r"</?b>|<br>", " ", text)
    paths = {path for word in re.split(r'[\s":\[\]()]+', text) for path in named(word)}
    assert {path for path in paths if not is_there(path) and path.rstrip("/") != "data"} == set()


@pytest.mark.parametrize("code", BLOCKS)
def test_a_path_of_the_service_is_answered(code, routes):
    text = re.sub(r"<[^>]*>", " ", code)
    wrong = []
    for method, path in re.findall(r"(?:\b([A-Z]{2,}) )?(?<![\w}/.:])(/[a-z][\w/]*)", text):
        if not any(
            pattern.fullmatch(path) and (not method or method in methods)
            for pattern, methods, _ in routes
        ):
            wrong.append(f"{method} {path}".strip())
    assert wrong == []


def drawn(code):
    """The classes of a class diagram, each with its members."""
    return [
        (name, [line.strip() for line in body.splitlines() if line.strip().startswith("+")])
        for name, body in re.findall(
            r"^ *class (\w+) \{\n(.*?)^ *\}", code, re.MULTILINE | re.DOTALL
        )
    ]


@pytest.mark.parametrize("code", BLOCKS)
def test_a_class_has_the_members_that_are_drawn(code):
    wrong = []
    for name, members in drawn(code):
        wanted = {re.match(r"\+(\w+)", member)[1] for member in members}
        have = [set(defined(node)) for node in classes().get(name, ())]
        if not any(wanted <= each for each in have):
            wrong.append((name, [wanted - each for each in have]))
        types = {kind for member in members for kind in re.findall(r"[:)] ([A-Z]\w+)$", member)}
        wrong += [(name, kind) for kind in types if kind not in classes()]
    assert wrong == []


@pytest.mark.parametrize("code", BLOCKS)
def test_an_arrow_of_a_class_diagram_is_between_classes(code):
    names = {name for name, _ in drawn(code)}
    arrows = re.findall(r"^ *(\w+) (?:-->|\*--|\.\.>) (\w+)", code, re.MULTILINE)
    if code.startswith("classDiagram"):
        ends = {end for arrow in arrows for end in arrow}
        assert {end for end in ends if end not in names and end not in classes()} == set()


@pytest.mark.parametrize("code", BLOCKS)
def test_a_call_has_its_arguments(code):
    wrong = []
    for name, given in re.findall(r"\b(\w+)\(([a-z_, ]*)\)", code):
        wanted = set(filter(None, given.split(", ")))
        if not any(wanted <= names for names in functions().get(name, ())):
            wrong.append(f"{name}({given})")
    assert wrong == []
