import os

from support.processes import python

# As a locale of another encoding: the C locale, neither coerced to UTF-8 nor in UTF-8 mode.
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def run(*command):
    return python(*command, env=os.environ | ASCII, encoding="utf-8")


def test_a_program_of_ours_speaks_utf8_in_any_locale():
    program = (
        "import sys; from pipeline.config import cli\n"
        "cli.run(lambda arguments: print('\\u2026', *arguments, sys.flags.utf8_mode))"
    )
    done = run("-c", program, "key=value")
    assert (done.returncode, done.stdout) == (0, "… key=value 1\n"), done.stderr


def test_without_that_the_locale_would_be_followed():
    assert "UnicodeEncodeError" in run("-c", "print('\\u2026')").stderr
