"""Rules on another clock."""

from fractions import Fraction

import pytest
import yaml
from support import time_scale as scale
from support.service_process import ROOT

SIXTIETH = Fraction(1, 60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5m", "5000ms"),
        ("1h30m", "90000ms"),
        ("3d", "4320000ms"),
        ("15s", "250ms"),
        ("0s", "0s"),
        ("1ms", "1ms"),
    ],
)
def test_a_duration_becomes_a_sixtieth(text, expected):
    assert scale.duration(text, SIXTIETH) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rate(a[5m])", "rate(a[5000ms])"),
        ("max_over_time(rate(a[5m])[1h:30s])", "max_over_time(rate(a[5000ms])[60000ms:500ms])"),
        ("a offset 1d > 90 * 86400", "a offset 1440000ms > 90 * 86400"),
        ('digits:error_ratio:rate5m{le="5m"} > 14.4', 'digits:error_ratio:rate5m{le="5m"} > 14.4'),
    ],
)
def test_ranges_steps_and_offsets_are_scaled_and_nothing_else(text, expected):
    assert scale.expression(text, SIXTIETH) == expected


def leaves(content, path=()):
    if isinstance(content, dict | list):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in pairs:
            yield from leaves(value, (*path, key))
    else:
        yield path, content


def test_all_files_are_copied_with_their_durations_and_nothing_else_changed(tmp_path):
    scale.main(SIXTIETH, tmp_path)
    changed = set()
    for pattern in scale.FILES:
        found = list((ROOT / "monitoring").glob(pattern))
        assert found
        for path in found:
            copy = tmp_path / path.relative_to(ROOT / "monitoring")
            before = dict(leaves(yaml.safe_load(path.read_text())))
            after = dict(leaves(yaml.safe_load(copy.read_text())))
            assert before.keys() == after.keys()
            changed |= {key[-1] for key in before if before[key] != after[key]}
    assert changed == {
        *("scrape_interval", "evaluation_interval", "refresh_interval", "expr"),
        *("for", "keep_firing_for", "group_wait", "group_interval", "repeat_interval"),
    }
