import pytest

from pipeline.reports import tables
from pipeline.reports.tables import Column

LONG = "run1-epochs=3-learning_rate=0.001-ab12cd34ef56"
COLUMNS = [
    Column("val %", ["98.95", "88.33"]),
    Column("epochs", ["6", "30"], spare=1),
    Column("learning_rate", ["0.002", "0.001"], spare=2),
    Column("created", ["11:47", "12:23"]),
]


@pytest.fixture
def shown(monkeypatch, capsys):
    """The lines of the table in a terminal of that width, and how many columns it lacks."""

    def show(names, columns, room):
        monkeypatch.setattr(tables, "room", lambda: room)
        left_out = tables.show_named(names, columns, [""] * len(names))
        return capsys.readouterr().out.splitlines(), left_out

    return show


ROOM = 40 + 7 + 8 + 15 + 9  # for a name of 40 characters and all columns


@pytest.mark.parametrize(
    ("room", "titles"),
    [
        (1000, ["val %", "epochs", "learning_rate", "created"]),
        (ROOM, ["val %", "epochs", "learning_rate", "created"]),
        (ROOM - 1, ["val %", "epochs", "created"]),
        (10, ["val %", "created"]),
    ],
)
def test_columns_go_as_room_runs_out_the_most_spare_first(shown, room, titles):
    lines, left_out = shown(["main", LONG], COLUMNS, room)
    assert (lines[0].replace("val %", "val_%").split()[1:], left_out) == (
        [title.replace(" ", "_") for title in titles],
        4 - len(titles),
    )


@pytest.mark.parametrize("room", [20, 44, 60, 80, 1000])
def test_nothing_is_cut_off_however_little_room_there_is(shown, room):
    lines, _ = shown(["main", LONG], COLUMNS, room)
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)
    assert "".join(line.split()[0] for line in lines[2:]) == LONG
    assert max(map(len, lines)) <= max(room, 40 + 7 + 9)
    assert lines[1].split()[:2] == ["main", "98.95"]
    assert lines[-1].endswith("12:23")


def test_names_are_text_not_markup(shown):
    lines, _ = shown(["[bold]x[/bold]"], [Column("n", ["[1, 2]"])], 80)
    assert lines[1] == "[bold]x[/bold]  [1, 2]"


def test_a_pipe_sets_no_limit(capsys):
    assert tables.room() == 1000


def test_numbers_have_as_many_digits_as_mean_something():
    p_values = (1.0, 0.043, 0.0031, 1e-9)
    assert [tables.p_value(p) for p in p_values] == ["1.00", "0.04", "0.0031", "< 0.0001"]
    assert [tables.equals(p) for p in p_values] == ["= 1.00", "= 0.04", "= 0.0031", "< 0.0001"]
    assert [tables.size(number) for number in (220_884, 5_549_804)] == ["221 kB", "5.5 MB"]
