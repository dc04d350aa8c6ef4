import pytest

from pipeline.reports import tables
from pipeline.reports.tables import Column

LONG = "run1-epochs=3-learning_rate=0.001-ab12cd"
COLUMNS = [
    Column("val %", ["98.95", "88.33"]),
    Column("epochs", ["6", "30"], spare=1),
    Column("learning_rate", ["0.002", "0.001"], spare=2),
    Column("created", ["11:47", "12:23"]),
]


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("main", 28, ["main"]),
        (LONG, 28, ["run1-epochs=3-", "learning_rate=0.001-ab12cd"]),
        (LONG, 40, [LONG]),
        ("  " + LONG, 28, ["  run1-epochs=3-", "  learning_rate=0.001-ab12cd"]),
        ("a" * 30 + "-b", 28, ["a" * 28, "aa-b"]),
        ("--", 28, ["--"]),
    ],
)
def test_names_are_folded_after_hyphens(name, width, lines):
    assert tables.fold(name, width).split("\n") == lines


def test_columns_go_as_room_runs_out_the_most_spare_first():
    def titles(room):
        return [column.title for column in tables.fitting(["main", LONG], COLUMNS, room)]

    assert titles(1000) == ["val %", "epochs", "learning_rate", "created"]
    assert titles(28 + 7 + 8 + 15 + 9) == ["val %", "epochs", "learning_rate", "created"]
    assert titles(28 + 7 + 8 + 15 + 8) == ["val %", "epochs", "created"]
    assert titles(10) == ["val %", "created"]


@pytest.mark.parametrize("room", [20, 44, 60, 80, 1000])
def test_nothing_is_cut_off_however_little_room_there_is(capsys, room):
    columns = tables.fitting(["main", LONG], COLUMNS, room)
    tables.show_named(["main", LONG], columns, ["bold", ""], room)
    lines = capsys.readouterr().out.splitlines()
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)
    assert "".join(line.split()[0] for line in lines[2:]) == LONG
    assert max(map(len, lines)) <= max(room, 28 + 7 + 9)
    assert lines[1].split()[:2] == ["main", "98.95"]
    assert lines[-1].endswith("12:23")


def test_names_are_text_not_markup(capsys):
    tables.show_named(["[bold]x[/bold]"], [Column("n", ["[1, 2]"])], [""], 80)
    assert capsys.readouterr().out.splitlines()[1] == "[bold]x[/bold]  [1, 2]"


def test_a_pipe_sets_no_limit(capsys):
    assert tables.room() == 1000


def test_numbers_have_as_many_digits_as_mean_something():
    p_values = (1.0, 0.043, 0.0031, 1e-9)
    assert [tables.p_value(p) for p in p_values] == ["1.00", "0.04", "0.0031", "< 0.0001"]
    assert [tables.equals(p) for p in p_values] == ["= 1.00", "= 0.04", "= 0.0031", "< 0.0001"]
    assert [tables.size(number) for number in (220_884, 5_549_804)] == ["221 kB", "5.5 MB"]
